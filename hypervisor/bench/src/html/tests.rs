use super::*;
use crate::run::{Case, Kind, Machine, Outcome, Samples, Unit};

fn run(kind: Kind, cases: Vec<Case>) -> Run {
    let mut run = Run::begin(kind, Machine::Kvm, 1);
    run.cases = cases;
    run
}

fn case(name: &str, values: &[u64]) -> Case {
    let repeats = (0..6).map(|at| Samples::of(values.iter().map(|value| value + at)).unwrap());
    Case::measured(name, "group", "what it does", Unit::Nanoseconds, repeats.collect())
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    let run = run(
        Kind::Exits,
        vec![case("a", &[10, 20]), case("b", &[1000]), case("c", &[5])],
    );
    let page = page(&[Column::new("one", &run)]);
    assert!(page.contains("default-src 'none'"));
    for foreign in [
        "<script",
        "http://",
        "https://",
        "@import",
        "url(",
        " src=",
        " style=\"",
        " onload",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn hostile_texts_are_shown_and_not_obeyed() {
    let evil = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let mut case = case(evil, &[10, 20]);
    case.group = evil.into();
    case.what = evil.into();
    case.cause = Some(evil.into());
    if let Outcome::Measured(measured) = &mut case.outcome {
        measured.notes.push(evil.into());
    }
    let mut run = run(
        Kind::Start,
        vec![
            case.clone(),
            case.clone(),
            Case::skipped("s", evil, evil, Unit::Ticks, evil),
        ],
    );
    run.cases[1].name = "other".into();
    run.started = evil.into();
    run.chiton.version = evil.into();
    run.environment.cpu = crate::run::Fact::Known(evil.into());
    run.environment.kernel = crate::run::Fact::Absent(evil.into());
    run.environment
        .mitigations
        .insert(evil.into(), crate::run::Fact::Known(evil.into()));
    let page = page(&[Column::new(evil, &run), Column::new(evil, &run)]);
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert_eq!(page.matches("<script").count() + page.matches("<img").count(), 0);
    assert_eq!(page.matches("</style>").count(), 1);
}

#[test]
fn every_case_its_reason_and_every_run_is_there() {
    let before = run(
        Kind::Exits,
        vec![
            case("cpuid", &[1000]),
            Case::skipped("wbinvd", "group", "w", Unit::Ticks, "no such thing"),
        ],
    );
    let after = run(Kind::Exits, vec![case("cpuid", &[2000])]);
    let page = page(&[Column::new("before.json", &before), Column::new("after.json", &after)]);
    for text in [
        "cpuid",
        "wbinvd",
        "no such thing",
        "before.json",
        "after.json",
        "× 2.00",
        "▲ more",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn every_drawing_has_a_title_and_every_figure_is_in_a_table() {
    let run = run(
        Kind::Exits,
        vec![case("a", &[10, 20]), case("b", &[1000]), case("c", &[777_777])],
    );
    let page = page(&[Column::new("one", &run)]);
    let drawings = page.matches("role=\"img\"").count();
    assert_eq!(drawings, 4);
    assert_eq!(
        page.matches("><title>").count(),
        drawings + 3 + 1,
        "one for each drawing, one for each dot of the overview, one for the page"
    );
    assert!(
        page.contains("<td class=\"number\">778 µs</td>"),
        "the median is in a table"
    );
}

#[test]
fn a_run_without_cases_is_a_page() {
    let run = run(Kind::Density, vec![]);
    assert!(page(&[Column::new("one", &run)]).contains("What many instances cost"));
}

#[test]
fn more_runs_than_colours_have_letters_of_their_own() {
    let run = run(Kind::Exits, vec![case("a", &[10])]);
    let columns = vec![Column::new("r", &run); 30];
    let page = page(&columns);
    for letter in [">A<", ">Z<", ">27<", ">30<"] {
        assert!(page.contains(letter), "{letter}");
    }
}
