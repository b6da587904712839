//! Intel VMX as knowledge: what the fields of a VMCS, the capability MSRs, the controls and the
//! exits mean, without an instruction that needs the hardware.
//!
//! The backend that executes VMX is `chiton-vmx`; what is here is tested on any machine.
