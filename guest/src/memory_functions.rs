//! The functions compilers call to move memory, for targets whose compiler expects them of a C
//! library.

/// Defines `memcpy`, `memmove`, `memset`, `memcmp` and `bcmp`, with a prefix, and the two symbols
/// of unwinding that precompiled libraries mention and guests never reach.
///
/// They are assembly, because a compiler may turn a copying loop into a call of `memcpy`. Up to
/// 16 bytes all is loaded before anything is stored; longer copies are the processor's own string
/// instructions, which are quick where guests run.
#[doc(hidden)]
#[macro_export]
macro_rules! memory_functions {
    ($prefix:literal) => {
        ::core::arch::global_asm!(
            ".pushsection .text.chiton_memory,\"ax\",@progbits",
            concat!(".global ", $prefix, "memcpy"),
            concat!(".type ", $prefix, "memcpy, @function"),
            concat!($prefix, "memcpy:"),
            "    mov rax, rdi",
            "    cmp rdx, 16",
            "    jbe 20f",
            "    mov rcx, rdx",
            "    rep movsb",
            "    ret",
            concat!(".global ", $prefix, "memmove"),
            concat!(".type ", $prefix, "memmove, @function"),
            concat!($prefix, "memmove:"),
            "    mov rax, rdi",
            "    cmp rdx, 16",
            "    jbe 20f",
            "    mov rcx, rdi",
            "    sub rcx, rsi",
            "    cmp rcx, rdx",
            "    mov rcx, rdx",
            // The target begins within the source: from the end down.
            "    jb 10f",
            "    rep movsb",
            "    ret",
            "10: lea rsi, [rsi + rdx - 8]",
            "    lea rdi, [rdi + rdx - 8]",
            "    shr rcx, 3",
            "    std",
            "    rep movsq",
            "    lea rsi, [rsi + 7]",
            "    lea rdi, [rdi + 7]",
            "    mov rcx, rdx",
            "    and rcx, 7",
            "    rep movsb",
            "    cld",
            "    ret",
            // At most 16 bytes: two pieces that may overlap.
            "20: cmp rdx, 8",
            "    jb 21f",
            "    mov rcx, [rsi]",
            "    mov r8, [rsi + rdx - 8]",
            "    mov [rdi], rcx",
            "    mov [rdi + rdx - 8], r8",
            "    ret",
            "21: cmp rdx, 4",
            "    jb 22f",
            "    mov ecx, [rsi]",
            "    mov r8d, [rsi + rdx - 4]",
            "    mov [rdi], ecx",
            "    mov [rdi + rdx - 4], r8d",
            "    ret",
            "22: test rdx, rdx",
            "    jz 23f",
            // One to three: first, middle, last.
            "    mov r9, rdx",
            "    shr r9, 1",
            "    movzx ecx, byte ptr [rsi]",
            "    movzx r8d, byte ptr [rsi + r9]",
            "    movzx r10d, byte ptr [rsi + rdx - 1]",
            "    mov [rdi], cl",
            "    mov [rdi + r9], r8b",
            "    mov [rdi + rdx - 1], r10b",
            "23: ret",
            concat!(".global ", $prefix, "memset"),
            concat!(".type ", $prefix, "memset, @function"),
            concat!($prefix, "memset:"),
            "    mov r8, rdi",
            "    mov eax, esi",
            "    mov rcx, rdx",
            "    rep stosb",
            "    mov rax, r8",
            "    ret",
            concat!(".global ", $prefix, "memcmp"),
            concat!(".type ", $prefix, "memcmp, @function"),
            concat!(".global ", $prefix, "bcmp"),
            concat!(".type ", $prefix, "bcmp, @function"),
            concat!($prefix, "memcmp:"),
            concat!($prefix, "bcmp:"),
            "30: cmp rdx, 8",
            "    jb 31f",
            "    mov rax, [rdi]",
            "    mov rcx, [rsi]",
            "    cmp rax, rcx",
            "    jne 32f",
            "    add rdi, 8",
            "    add rsi, 8",
            "    sub rdx, 8",
            "    jmp 30b",
            "31: test rdx, rdx",
            "    jz 33f",
            "    movzx eax, byte ptr [rdi]",
            "    movzx ecx, byte ptr [rsi]",
            "    sub eax, ecx",
            "    jne 34f",
            "    inc rdi",
            "    inc rsi",
            "    dec rdx",
            "    jmp 31b",
            // The first byte that differs decides.
            "32: bswap rax",
            "    bswap rcx",
            "    cmp rax, rcx",
            "    sbb eax, eax",
            "    or eax, 1",
            "    ret",
            "33: xor eax, eax",
            "34: ret",
            concat!(".weak ", $prefix, "rust_eh_personality"),
            concat!(".weak ", $prefix, "_Unwind_Resume"),
            concat!($prefix, "rust_eh_personality:"),
            concat!($prefix, "_Unwind_Resume:"),
            "    ud2",
            ".popsection",
        );
    };
}

// Miri does not run assembly.
#[cfg(all(test, not(miri)))]
mod tests {
    use core::ffi::c_void;

    crate::memory_functions!("chiton_test_");

    unsafe extern "C" {
        fn chiton_test_memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
        fn chiton_test_memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
        fn chiton_test_memset(to: *mut c_void, byte: i32, len: usize) -> *mut c_void;
        fn chiton_test_memcmp(a: *const c_void, b: *const c_void, len: usize) -> i32;
    }

    const LEN: usize = 64;

    fn numbered() -> [u8; LEN] {
        core::array::from_fn(|i| i as u8)
    }

    #[test]
    fn copies_of_every_length_between_every_pair_of_places() {
        for from in 0..LEN {
            for to in 0..LEN {
                for len in 0..=LEN - from.max(to) {
                    let mut expected = numbered();
                    expected.copy_within(from..from + len, to);
                    let mut moved = numbered();
                    let start = moved.as_mut_ptr();
                    // SAFETY: both pieces lie within the array.
                    let returned = unsafe { chiton_test_memmove(start.add(to).cast(), start.add(from).cast(), len) };
                    assert_eq!(returned, start.wrapping_add(to).cast());
                    assert_eq!(moved, expected, "{len} bytes from {from} to {to}");

                    let source = numbered();
                    let mut copied = numbered();
                    // SAFETY: both pieces lie within their arrays.
                    unsafe {
                        chiton_test_memcpy(
                            copied.as_mut_ptr().add(to).cast(),
                            source.as_ptr().add(from).cast(),
                            len,
                        )
                    };
                    assert_eq!(copied, expected, "{len} bytes from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn a_fill_changes_exactly_its_bytes() {
        for at in 0..LEN {
            for len in 0..=LEN - at {
                let mut expected = numbered();
                expected[at..at + len].fill(0xEE);
                let mut filled = numbered();
                // SAFETY: the piece lies within the array.
                unsafe { chiton_test_memset(filled.as_mut_ptr().add(at).cast(), 0x1EE, len) };
                assert_eq!(filled, expected);
            }
        }
    }

    #[test]
    fn a_comparison_is_decided_by_the_first_byte_that_differs() {
        for len in 0..24 {
            let a = numbered();
            let start = a.as_ptr().cast();
            // SAFETY: both pieces lie within the array, here and below.
            let same = unsafe { chiton_test_memcmp(start, start, len) };
            assert_eq!(same, 0);
            for at in 0..len {
                let mut b = a;
                b[at] = 0xFF;
                if at + 1 < len {
                    b[at + 1] = 0;
                }
                let (a, b) = (a.as_ptr().cast(), b.as_ptr().cast());
                // SAFETY: as above.
                unsafe {
                    assert!(chiton_test_memcmp(a, b, len) < 0);
                    assert!(chiton_test_memcmp(b, a, len) > 0);
                }
            }
        }
    }
}
