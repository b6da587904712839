//! A link whose other end a test holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO,
    Header,
};

use super::{Link, Received, Sent, Status};

/// How many pairs of queues it serves, if it serves several.
pub(crate) const PAIRS: usize = 2;

/// What the test's end of a link sees and sets.
#[derive(Default)]
pub(crate) struct State {
    /// Frames for each pair of queues.
    pub(crate) inputs: [VecDeque<Vec<u8>>; PAIRS],
    pub(crate) output: Vec<(Header, Vec<u8>)>,
    /// The pair of each frame in `output`.
    pub(crate) output_pairs: Vec<usize>,
    /// Which pairs are watched for input.
    pub(crate) watched: [bool; PAIRS],
    /// How many pairs are in use, once that was said.
    pub(crate) in_use: u16,
    /// There is more than one pair.
    pub(crate) several: bool,
    pub(crate) down: bool,
    pub(crate) offloads: u64,
    pub(crate) receives: usize,
    pub(crate) gone: bool,
    pub(crate) blocked: bool,
    /// What is sent comes back.
    pub(crate) echo: bool,
}

impl State {
    /// Frames for the first pair.
    pub(crate) fn input(&mut self) -> &mut VecDeque<Vec<u8>> {
        &mut self.inputs[0]
    }
}

/// A link; clones are the same link.
#[derive(Clone, Default)]
pub(crate) struct FakeLink(Arc<Mutex<State>>);

impl FakeLink {
    /// One with [`PAIRS`] pairs of queues.
    pub(crate) fn several() -> Self {
        let link = Self::default();
        link.state().several = true;
        link
    }

    /// How many frames went out, and how many are still to come in.
    pub(crate) fn moved_and_left(&self) -> (usize, usize) {
        let mut state = self.state();
        (state.output.len(), state.input().len())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for FakeLink {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 7]
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn offloads(&self) -> u64 {
        F_CSUM
            | F_GUEST_CSUM
            | F_HOST_TSO4
            | F_HOST_TSO6
            | F_HOST_USO
            | F_GUEST_TSO4
            | F_GUEST_TSO6
            | F_GUEST_USO4
            | F_GUEST_USO6
    }

    fn set_offloads(&mut self, features: u64) {
        self.state().offloads = features;
    }

    fn status(&mut self) -> Status {
        let state = self.state();
        match (state.gone, state.down) {
            (true, _) => Status::Gone,
            (false, true) => Status::Down,
            (false, false) => Status::Up,
        }
    }

    fn pairs(&self) -> u16 {
        if self.state().several { PAIRS as u16 } else { 1 }
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        self.state().in_use = pairs;
        true
    }

    fn watch(&mut self, pair: usize, wanted: bool) {
        self.state().watched[pair] = wanted;
    }

    fn receive(&mut self, pair: usize, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        let mut state = self.state();
        state.receives += 1;
        if state.gone {
            return Received::Gone;
        }
        let Some(frame) = state.inputs[pair].pop_front() else {
            return Received::Empty;
        };
        header[0] = 2;
        let mut done = 0;
        for window in to {
            let len = window.len().min(frame.len() - done);
            window.write(0, &frame[done..done + len]);
            done += len;
        }
        if done < frame.len() {
            Received::TooLong
        } else {
            Received::Frame(done)
        }
    }

    fn send(&mut self, pair: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        let mut state = self.state();
        if state.gone {
            return Sent::Gone;
        }
        if state.blocked {
            return Sent::Dropped;
        }
        let mut bytes = Vec::new();
        for window in frame {
            let start = bytes.len();
            bytes.resize(start + window.len(), 0);
            window.read(0, &mut bytes[start..]);
        }
        if state.echo {
            state.inputs[pair].push_back(bytes.clone());
        }
        state.output_pairs.push(pair);
        state.output.push((Header::from_bytes(header), bytes));
        Sent::Done
    }
}
