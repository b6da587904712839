use std::cell::RefCell;

use super::*;

/// A processor with everything but tertiary controls, and the registers that were read of it.
fn machine(basic: u64, primary: u64, asked: &RefCell<Vec<u32>>) -> Capabilities {
    let source = |register: u32| {
        asked.borrow_mut().push(register);
        match register {
            IA32_FEATURE_CONTROL => 5,
            0x480 => basic,
            0x482 | 0x48e => primary << 32,
            0x48b => 0x22 << 32,
            _ => u64::from(register) << 32,
        }
    };
    Capabilities::read(&source, Processor::default())
}

#[test]
fn registers_that_do_not_exist_are_not_read() {
    let asked = RefCell::default();
    let capabilities = machine(0, 0, &asked);
    assert_eq!(
        asked.borrow().iter().max(),
        Some(&0x48a),
        "no secondary controls, no TRUE registers"
    );
    assert_eq!(capabilities.pin.may, 0x481);
    assert_eq!(capabilities.ept_vpid, EptVpid(0));
    assert!(capabilities.feature_control.locked() && capabilities.feature_control.vmx_outside_smx());
}

#[test]
fn the_true_registers_are_taken_where_they_are() {
    let asked = RefCell::default();
    let capabilities = machine(1 << 55, 1 << 31, &asked);
    assert_eq!(capabilities.pin.may, 0x48d);
    assert_eq!(capabilities.exit.may, 0x48f);
    assert_eq!(capabilities.entry.may, 0x490);
    assert_eq!(capabilities.secondary.may, 0x22);
    assert_eq!(capabilities.ept_vpid.0, 0x48c << 32, "EPT is offered");
    assert!(!asked.borrow().contains(&0x481), "{asked:x?}");
    assert!(!asked.borrow().contains(&0x491), "VM functions are not offered");
}

#[test]
fn a_setting_is_taken_that_has_what_must_and_only_what_may() {
    let allowed = Allowed::of_halves(0x0000_000f_0000_0003);
    assert!(allowed.takes(3) && allowed.takes(0xf));
    assert!(!allowed.takes(1) && !allowed.takes(0x13));
}

#[test]
fn basic_and_misc_say_what_their_bits_mean() {
    let basic = Basic(0x00d8_1000_0000_002b | 1 << 31);
    assert_eq!(
        (basic.revision(), basic.region_size(), basic.memory_type()),
        (0x2b, 4096, 6)
    );
    assert!(basic.true_controls() && basic.reports_string_io() && !basic.below_4_gib());

    let misc = Misc(0x7004_c1e7);
    assert_eq!(
        (misc.preemption_timer_shift(), misc.cr3_targets(), misc.msr_list_limit()),
        (7, 4, 512)
    );
    assert!([0, 1, 2, 3].into_iter().all(|state| misc.supports_activity(state)));
    assert!(!misc.supports_activity(4) && !Misc(0).supports_activity(1));
    assert!(misc.writes_any_field() && misc.zero_length_injection());
}

#[test]
fn a_processor_is_read_from_cpuid() {
    let processor = Processor::from_cpuid(|leaf, sub| match leaf {
        0 => [0xd, 0, 0, 0],
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        0x8000_0008 => [0x3027, 0, 0, 0],
        7 if sub == 0 => [1, 1 << 11, 1 << 7, 1 << 20],
        7 => [1 << 26, 0, 0, 0],
        0xa => [0x0730_0404, 0, 0, 0x603],
        _ => [0; 4],
    });
    assert_eq!((processor.physical_bits, processor.linear_bits), (39, 48));
    assert_eq!(processor.perf_global_ctrl, 0x7_0000_000f);
    assert!(processor.rtm && processor.shadow_stacks && processor.branch_tracking && processor.linear_address_masking);
    assert_eq!(processor.debugctl, 0x9fc3);
    assert!(!processor.sgx && !processor.bus_lock_detection);

    let old = Processor::from_cpuid(|_, _| [0; 4]);
    assert_eq!((old.physical_bits, old.linear_bits, old.perf_global_ctrl), (36, 48, 0));
}
