//! AMD SVM as knowledge: the layout of a VMCB, its intercepts and exit codes, and the rules that
//! VMRUN checks, without an instruction that needs the hardware.
//!
//! The backend that executes SVM is `chiton-svm`; what is here is tested on any machine.
