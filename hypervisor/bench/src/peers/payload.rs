//! What peers run: a Linux program and a kernel, the smallest that say something and end.
//!
//! They are written down as bytes, so that whoever measures needs neither a compiler nor a download. Assembly is
//! Intel's.

/// What both say.
pub const SAID: &str = "hello from a payload";

/// `elf(5)`, 64 bits, little endian: what is before the first program header, and each header.
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const EXEC: u16 = 2;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// A static program for Linux that writes [`SAID`] to standard output.
#[must_use]
pub fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let text = format!("{SAID}\n");
    let entry = BASE + HEADER + PROGRAM_HEADER;
    let code = |message: u64| {
        let mut code = vec![0xB8, 1, 0, 0, 0, 0xBF, 1, 0, 0, 0, 0xBE]; // mov eax, write; mov edi, 1; mov esi, …
        code.extend((message as u32).to_le_bytes());
        code.push(0xBA); // mov edx, …
        code.extend((text.len() as u32).to_le_bytes());
        code.extend([0x0F, 0x05]); // syscall
        code.extend([0xB8, 231, 0, 0, 0, 0x31, 0xFF, 0x0F, 0x05]); // mov eax, exit_group; xor edi, edi; syscall
        code
    };
    let length = code(0).len() as u64;
    let body = [code(entry + length), text.into_bytes()].concat();
    elf(BASE, entry, &body, &[])
}

/// A kernel that begins by the PVH protocol (Xen, `docs/misc/pvh.pandoc`: 32 bits, no paging), writes [`SAID`] to the
/// serial port at 0x3F8, and resets the machine.
#[must_use]
pub fn kernel() -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    /// `XEN_ELFNOTE_PHYS32_ENTRY` (Xen, `xen/include/public/elfnote.h`).
    const PHYS32_ENTRY: u32 = 18;
    let text = format!("{SAID}\n");
    let entry = BASE + HEADER + 2 * PROGRAM_HEADER;
    let code = |message: u32, empty: u32| {
        let mut code = vec![0xBE]; // mov esi, …
        code.extend(message.to_le_bytes());
        code.push(0xB9); // mov ecx, …
        code.extend((text.len() as u32).to_le_bytes());
        code.extend([0x66, 0xBA, 0xF8, 0x03]); // mov dx, 0x3F8
        code.extend([0xAC, 0xEE, 0xE2, 0xFC]); // again: lodsb; out dx, al; loop again
        code.extend([0xB0, 0xFE, 0xE6, 0x64]); // mov al, 0xFE; out 0x64, al: a reset by the keyboard's controller
        code.extend([0x0F, 0x01, 0x1D]); // lidt […]: where there is none, a triple fault
        code.extend(empty.to_le_bytes());
        code.extend([0xB8, 0xF8, 0xFF, 0, 0, 0x8E, 0xD8, 0xF4]); // mov eax, 0xFFF8; mov ds, ax: no such segment; hlt
        code
    };
    let length = code(0, 0).len() as u32;
    let message = entry as u32 + length;
    let empty = message + text.len() as u32;
    let mut body = [code(message, empty), text.into_bytes(), vec![0; 6]].concat();
    body.resize(body.len().next_multiple_of(4), 0);
    let mut note = Vec::new();
    for number in [4, 4, PHYS32_ENTRY] {
        note.extend(number.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend((entry as u32).to_le_bytes());
    elf(BASE, entry, &body, &note)
}

/// A file of one segment, which is loaded at `base`, headers and all, and of a note, if there is one.
fn elf(base: u64, entry: u64, body: &[u8], note: &[u8]) -> Vec<u8> {
    let headers: u16 = if note.is_empty() { 1 } else { 2 };
    let begin = HEADER + u64::from(headers) * PROGRAM_HEADER;
    let note_at = begin + body.len() as u64;
    let length = note_at + note.len() as u64;
    let mut file = b"\x7FELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([EXEC.to_le_bytes(), X86_64.to_le_bytes()].concat());
    file.extend(1u32.to_le_bytes());
    for number in [entry, HEADER, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for number in [HEADER as u16, PROGRAM_HEADER as u16, headers, 64, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    let mut header = |kind: u32, flags: u32, at: u64, length: u64, align: u64| {
        file.extend([kind.to_le_bytes(), flags.to_le_bytes()].concat());
        for number in [at, base + at, base + at, length, length, align] {
            file.extend(number.to_le_bytes());
        }
    };
    header(LOAD, 5, 0, length, 0x1000);
    if !note.is_empty() {
        header(NOTE, 4, note_at, note.len() as u64, 4);
    }
    file.extend(body);
    file.extend(note);
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::{fs, process::Command};

    use super::*;
    use crate::trial::Program;

    #[test]
    fn the_program_says_it_and_ends_well() {
        let place = tempfile::tempdir().unwrap();
        let (written, path) = (place.path().join("written"), place.path().join("program"));
        fs::write(&written, program()).unwrap();
        // By another process: a child that another test starts while this one writes would have the file open for
        // writing too, and the kernel runs nothing that is.
        let copied = Command::new("cp").args([&written, &path]).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Program::new("payload", Command::new(&path)).try_out(SAID).unwrap();
    }

    #[test]
    fn the_kernels_note_names_the_place_of_its_first_instruction() {
        let kernel = kernel();
        let at = kernel.windows(4).rposition(|four| four == b"Xen\0").unwrap();
        let entry = u32::from_le_bytes(kernel[at + 4..at + 8].try_into().unwrap());
        let code = (entry - 0x10_0000) as usize;
        assert_eq!(kernel[code], 0xBE, "mov esi");
        let message = u32::from_le_bytes(kernel[code + 1..code + 5].try_into().unwrap()) - 0x10_0000;
        assert!(kernel[message as usize..].starts_with(SAID.as_bytes()));
    }
}
