use proptest::prelude::*;

use super::*;

const GOOD: &str = "\
[some text of the machine]
@measure 1 tsc_khz=2445405 ring=3 processors=1
@begin cpuid repeat=0
@samples 10 20x2
@samples 20 30
@end cpuid operations=1 warmup=0 count=5 sum=100
@begin cpuid repeat=1
@samples 11
@end cpuid operations=1 warmup=0 count=1 sum=11
@skip vmcall it needs ring 0
@done
";

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Records::read(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_lines_of_a_guest_become_its_cases() {
    let records = Records::read(GOOD).unwrap();
    assert!(records.done && records.open().is_none());
    let cpuid = records.get("cpuid").unwrap();
    assert_eq!(cpuid.repeats[0].values, [(10, 1), (20, 3), (30, 1)]);
    assert_eq!(cpuid.repeats[1].values, [(11, 1)]);
    assert_eq!(
        records.get("vmcall").unwrap().skipped.as_deref(),
        Some("it needs ring 0")
    );
}

#[test]
fn lines_that_end_as_on_a_serial_line_are_read_too() {
    assert_eq!(Records::read(&GOOD.replace('\n', "\r\n")), Records::read(GOOD));
}

#[test]
fn a_case_without_an_end_is_the_one_in_which_the_guest_was_lost() {
    let (cut, _) = GOOD.split_at(GOOD.find("@samples 11").unwrap());
    let records = Records::read(cut).unwrap();
    assert_eq!(records.open(), Some("cpuid"));
    assert!(!records.done);
    assert_eq!(records.get("cpuid").unwrap().repeats.len(), 1);
}

#[test]
fn a_lost_line_is_noticed() {
    let missing = refused("@samples 20 30\n", "");
    assert!(
        missing.contains("says that it has 5 samples of 100 ticks together, and 3"),
        "{missing}"
    );
}

#[test]
fn lines_out_of_turn_are_refused_by_their_number() {
    assert!(refused("@measure 1 tsc_khz=2445405 ring=3 processors=1\n", "").starts_with("line 2: it comes before"));
    assert!(refused("@begin cpuid repeat=0\n", "").contains("samples belong to no case"));
    assert!(refused("repeat=1", "repeat=2").contains("not in order"));
    assert!(refused("@samples 20 30", "@samples 19 30").contains("not ascending"));
    assert!(refused("@end cpuid", "@end vmcall").contains("has not begun"));
    assert!(refused("@end cpuid operations=1 warmup=0 count=5 sum=100\n", "").contains("begins in another one"));
    assert!(refused("@skip", "@measure 1 tsc_khz=1 ring=0 processors=1\n@skip").contains("begins twice"));
    assert!(refused("@samples 11\n", "@samples 11\n@done\n").contains("in the middle of a case"));
}

#[test]
fn a_text_without_records_is_none() {
    assert_eq!(Records::read("hello\n"), Err(RecordsError::None));
}

proptest! {
    #[test]
    fn any_lines_are_read_or_refused_without_a_panic(
        lines in prop::collection::vec("(@measure 1 tsc_khz=[0-9]{1,3} ring=0 processors=1|@begin [ab] repeat=[01]|@samples( [0-9]{1,2}(x[0-9]{1,20})?){1,3}|@end [ab] operations=1 warmup=0 count=[0-9] sum=[0-9]{1,3}|@skip [ab] x|@done|.{0,8})", 0..30)
    ) {
        let text = format!("@measure 1 tsc_khz=1 ring=0 processors=1\n{}", lines.join("\n"));
        if let Ok(records) = Records::read(&text) {
            for case in &records.cases {
                prop_assert!(case.skipped.is_some() || !case.repeats.is_empty());
                for repeat in &case.repeats {
                    prop_assert!(repeat.values.is_sorted_by(|one, other| one.0 < other.0));
                }
            }
        }
    }
}
