//! One function, which greets.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hyperlight_common::flatbuffer_wrappers::function_call::FunctionCall;
use hyperlight_common::flatbuffer_wrappers::guest_error::ErrorCode;
use hyperlight_guest::bail;
use hyperlight_guest::error::Result;
use hyperlight_guest_bin::guest_function;

#[guest_function("Greet")]
fn greet() -> Result<String> {
    Ok("hello from a payload".to_string())
}

/// Called once, when the sandbox is made.
#[unsafe(no_mangle)]
pub extern "C" fn hyperlight_main() {}

/// Called for a function that nobody registered.
#[unsafe(no_mangle)]
pub fn guest_dispatch_function(call: FunctionCall) -> Result<Vec<u8>> {
    bail!(ErrorCode::GuestFunctionNotFound => "there is no {}", call.function_name);
}
