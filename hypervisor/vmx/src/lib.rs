//! The bare-metal backend for Intel's processors: a vCPU that programs VMX itself.
#![no_std]
