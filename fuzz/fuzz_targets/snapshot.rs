//! Any bytes as a snapshot: its header, its description, the state of its processors and devices. What is read is
//! written the same, and devices that go on from it work on their queues.
#![no_main]

use chiton_core::devices::console::{Console, Input, Output, Port};
use chiton_core::devices::entropy::{Entropy, Source, SourceError};
use chiton_core::devices::{Balloon, Device, Pages, PagesError, Transport};
use chiton_core::state::{Reader, Writer};
use chiton_kvm::snapshot::format::{Description, HEADER, Header};
use chiton_kvm::state::VcpuState;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl Port for Nothing {
    fn read(&mut self, _: &[Window<'_>]) -> Input {
        Input::Empty
    }

    fn write(&mut self, _: &[Window<'_>]) -> Output {
        Output::Full
    }

    fn emergency(&mut self, _: u8) {}
}

impl Source for Nothing {
    fn fill(&mut self, _: Window<'_>) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Pages for Nothing {
    fn release(&mut self, _: Window<'_>) -> Result<(), PagesError> {
        Ok(())
    }

    fn target(&self) -> u32 {
        0
    }
}

/// A device that takes the state on has it afterwards, and can be worked on.
fn device(device: impl Device + 'static, state: &[u8]) {
    let mut transport = Transport::new(Box::new(device));
    let mut reader = Reader::new(state);
    if transport.load(&mut reader).is_err() {
        assert!(!transport.is_live(), "it is as after a reset");
        return;
    }
    let len = state.len() - {
        let mut rest = 0;
        while reader.u8().is_ok() {
            rest += 1;
        }
        rest
    };
    let mut writer = Writer::new();
    transport.save(&mut writer).expect("nothing is under way");
    assert_eq!(writer.into_bytes(), state[..len]);
}

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    match what % 6 {
        0 => {
            if let Some((header, _)) = data.split_first_chunk::<HEADER>()
                && let Ok(header) = Header::parse(header)
            {
                assert_eq!(Header::parse(&header.to_bytes()).expect("its own"), header);
                assert!(header.file_len() >= header.description_at());
            }
        }
        1 => {
            let Some((memory, data)) = data.split_first_chunk() else { return };
            let memory = u64::from_le_bytes(*memory);
            if let Ok(description) = Description::parse(data, memory) {
                let again = Description::parse(&description.to_bytes(), memory).expect("its own");
                assert_eq!(again, description);
            }
        }
        2 => {
            let mut reader = Reader::new(data);
            if let Ok(state) = VcpuState::load(&mut reader) {
                let mut writer = Writer::new();
                state.save(&mut writer);
                let bytes = writer.into_bytes();
                assert_eq!(bytes, data[..bytes.len()]);
            }
        }
        3 => device(Console::new(Nothing), data),
        4 => device(Entropy::new(Nothing), data),
        _ => device(Balloon::new(Nothing), data),
    }
});
