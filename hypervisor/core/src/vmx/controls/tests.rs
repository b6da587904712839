use super::*;

fn capabilities() -> Capabilities {
    Capabilities {
        pin: Allowed {
            must: 0b1_0110,
            may: 0x7f,
        },
        secondary: Allowed {
            must: 0,
            may: secondary::ENABLE_EPT | secondary::UNRESTRICTED_GUEST,
        },
        ..Capabilities::default()
    }
}

#[test]
fn what_has_to_be_and_what_the_processor_wants_is_chosen() {
    let wanted = Wanted {
        required: pin::NMI_EXITING,
        optional: pin::VIRTUAL_NMIS | pin::PROCESS_POSTED_INTERRUPTS,
        unwanted: pin::EXTERNAL_INTERRUPT_EXITING,
    };
    let choice = wanted.choose(Group::Pin, &capabilities()).unwrap();
    assert_eq!(choice.low(), 0b11_1110, "posted interrupts are not offered");
    assert!(Group::Pin.allowed(&capabilities()).takes(choice.chosen));
}

#[test]
fn a_refusal_names_the_bit_and_the_section() {
    let wanted = Wanted {
        required: secondary::ENABLE_EPT | secondary::ENABLE_VPID,
        ..Wanted::NOTHING
    };
    assert_eq!(
        wanted
            .choose(Group::Secondary, &capabilities())
            .unwrap_err()
            .to_string(),
        "this processor does not offer \"enable VPID\", bit 5 of the secondary processor-based VM-execution controls \
         (SDM volume 3C, section 26.6.2); it is needed"
    );
    let stuck = Capabilities {
        primary: Allowed {
            must: primary::CR3_LOAD_EXITING,
            may: !0,
        },
        ..capabilities()
    };
    let wanted = Wanted {
        unwanted: primary::CR3_LOAD_EXITING,
        ..Wanted::NOTHING
    };
    assert_eq!(
        wanted.choose(Group::Primary, &stuck).unwrap_err().to_string(),
        "this processor cannot turn off \"CR3-load exiting\", bit 15 of the primary processor-based VM-execution \
         controls (SDM volume 3C, section 26.6.2); it has to be off"
    );
}

#[test]
fn the_table_shows_what_was_wanted_allowed_and_chosen() {
    let wanted = Wanted {
        required: pin::NMI_EXITING,
        optional: pin::PROCESS_POSTED_INTERRUPTS,
        unwanted: pin::EXTERNAL_INTERRUPT_EXITING,
    };
    let table = wanted.choose(Group::Pin, &capabilities()).unwrap().to_string();
    assert_eq!(
        table,
        "pin-based VM-execution controls = 0x1e (SDM volume 3C, section 26.6.1)
  bit  control                                 wanted    allowed  chosen
    0  external-interrupt exiting              off       0 or 1   0
    1  (reserved)                              -         1        1
    2  (reserved)                              -         1        1
    3  NMI exiting                             required  0 or 1   1
    4  (reserved)                              -         1        1
    5  virtual NMIs                            -         0 or 1   0
    6  activate VMX-preemption timer           -         0 or 1   0
    7  process posted interrupts               if can    0        0
"
    );
}

#[test]
fn no_group_names_a_bit_twice() {
    for group in Group::ALL {
        let controls = group.controls();
        assert!(controls.windows(2).all(|pair| pair[0].bit < pair[1].bit), "{group:?}");
        assert!(
            controls
                .iter()
                .enumerate()
                .all(|(at, one)| controls[..at].iter().all(|two| two.name != one.name))
        );
    }
}
