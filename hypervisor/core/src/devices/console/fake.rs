//! A port whose other end a test holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;

use super::{Input, Output, Port};

/// What the test's end of a port sees and sets.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) input: VecDeque<u8>,
    pub(crate) input_ended: bool,
    /// How many reads there were.
    pub(crate) reads: usize,
    pub(crate) output: Vec<u8>,
    /// How many bytes of output each call takes, from the first on; then there is no room.
    pub(crate) takes: VecDeque<usize>,
    pub(crate) output_closed: bool,
    pub(crate) writes: usize,
    pub(crate) emergency: Vec<u8>,
    pub(crate) size: (u16, u16),
}

/// A port; clones are the same port.
#[derive(Clone, Default)]
pub(crate) struct FakePort(Arc<Mutex<State>>);

impl FakePort {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port for FakePort {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        let mut state = self.state();
        state.reads += 1;
        let mut done = 0;
        for window in to {
            let len = window.len().min(state.input.len());
            let bytes: Vec<u8> = state.input.drain(..len).collect();
            window.write(0, &bytes);
            done += len;
        }
        match done {
            0 if state.input_ended => Input::End,
            0 => Input::Empty,
            bytes => Input::Bytes(bytes),
        }
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let mut state = self.state();
        state.writes += 1;
        if state.output_closed {
            return Output::Closed;
        }
        let Some(mut room) = state.takes.pop_front() else {
            return Output::Full;
        };
        let before = state.output.len();
        for window in from {
            let mut bytes = vec![0; window.len().min(room)];
            window.read(0, &mut bytes);
            room -= bytes.len();
            state.output.extend(bytes);
        }
        Output::Bytes(state.output.len() - before)
    }

    fn emergency(&mut self, byte: u8) {
        self.state().emergency.push(byte);
    }

    fn size(&self) -> (u16, u16) {
        self.state().size
    }
}
