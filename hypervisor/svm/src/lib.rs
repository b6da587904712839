//! The bare-metal backend for AMD's processors: a vCPU that programs SVM itself.
#![no_std]
