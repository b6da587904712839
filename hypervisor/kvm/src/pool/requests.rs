//! What a pool asks of KVM, for those who filter it.

/// The requests that a pool makes of KVM (`ioctl(2)`), from its start to its end: for filters of system calls, which try
/// them in this order.
pub const REQUESTS: &[u32] = &[
    // Each call.
    0xAE80,      // KVM_RUN
    0x4010_AE42, // KVM_GET_DIRTY_LOG
    0x5000_AEA5, // KVM_SET_XSAVE
    // At times.
    0xC018_AEC0, // KVM_CLEAR_DIRTY_LOG
    // The guest until it is ready.
    0xAE03,      // KVM_CHECK_EXTENSION
    0xAEA3,      // KVM_GET_TSC_KHZ
    0x8090_AE81, // KVM_GET_REGS
    0x8138_AE83, // KVM_GET_SREGS
    0x9000_AEA4, // KVM_GET_XSAVE
    0x8188_AEA6, // KVM_GET_XCRS
    0x8080_AEA1, // KVM_GET_DEBUGREGS
    0x8040_AE9F, // KVM_GET_VCPU_EVENTS
    0x8004_AE98, // KVM_GET_MP_STATE
    0xC008_AE88, // KVM_GET_MSRS
    // Each machine.
    0xAE01,      // KVM_CREATE_VM
    0xAE04,      // KVM_GET_VCPU_MMAP_SIZE
    0xAE41,      // KVM_CREATE_VCPU
    0x4068_AEA3, // KVM_ENABLE_CAP
    0x4020_AE46, // KVM_SET_USER_MEMORY_REGION
    0x4008_AE90, // KVM_SET_CPUID2
    0x4188_AEA7, // KVM_SET_XCRS
    0x4080_AEA2, // KVM_SET_DEBUGREGS
    0x4008_AE89, // KVM_SET_MSRS
];
