//! Sockets whose other ends a test holds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use chiton_shared::memory::Window;

use super::sockets::{Event, Refused, Socket, Sockets};
use crate::devices::console::{Input, Output};

/// A test's end of a socket.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// What the host sends, and whether that is all.
    pub(crate) input: VecDeque<u8>,
    pub(crate) input_ended: bool,
    /// What came from the guest.
    pub(crate) output: Vec<u8>,
    /// How much more is taken.
    pub(crate) room: usize,
    pub(crate) deaf: bool,
    pub(crate) finished: bool,
    /// Its port on the host, when the guest has accepted.
    pub(crate) port: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) events: VecDeque<Event>,
    pub(crate) ends: BTreeMap<Socket, End>,
    /// Ports of the host that somebody serves.
    pub(crate) served: Vec<u32>,
    pub(crate) made: u64,
}

/// Sockets; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct FakeSockets(Arc<Mutex<State>>);

impl FakeSockets {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host client asks for a port of the guest.
    pub(crate) fn ask(&self, port: u32) -> Socket {
        let mut state = self.state();
        let socket = state.add();
        state.events.push_back(Event::Asked { socket, port });
        socket
    }

    /// Does something at the test's end, and has the device look.
    pub(crate) fn at<R>(&self, socket: Socket, action: impl FnOnce(&mut End) -> R) -> R {
        let mut state = self.state();
        state.events.push_back(Event::Ready(socket));
        action(state.ends.get_mut(&socket).expect("a socket that is open"))
    }
}

impl State {
    fn add(&mut self) -> Socket {
        self.made += 1;
        let socket = Socket(self.made);
        let end = End {
            room: usize::MAX,
            ..End::default()
        };
        self.ends.insert(socket, end);
        socket
    }

    fn end(&mut self, socket: Socket) -> &mut End {
        self.ends
            .get_mut(&socket)
            .expect("the device uses sockets that are open")
    }
}

impl Sockets for FakeSockets {
    fn next_event(&mut self) -> Option<Event> {
        self.state().events.pop_front()
    }

    fn connect(&mut self, port: u32) -> Result<Socket, Refused> {
        let mut state = self.state();
        if state.served.contains(&port) {
            Ok(state.add())
        } else {
            Err(Refused)
        }
    }

    fn accepted(&mut self, socket: Socket, port: u32) {
        self.state().end(socket).port = Some(port);
    }

    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input {
        let mut state = self.state();
        let end = state.end(socket);
        let mut done = 0;
        for window in to {
            let len = window.len().min(end.input.len());
            let bytes: Vec<u8> = end.input.drain(..len).collect();
            window.write(0, &bytes);
            done += len;
        }
        match done {
            0 if end.input_ended => Input::End,
            0 => Input::Empty,
            bytes => Input::Bytes(bytes),
        }
    }

    fn write(&mut self, socket: Socket, from: &[u8]) -> Output {
        let mut state = self.state();
        let end = state.end(socket);
        assert!(!end.finished, "a write after the end");
        if end.deaf {
            return Output::Closed;
        }
        let len = from.len().min(end.room);
        end.room -= len;
        end.output.extend_from_slice(&from[..len]);
        if len == 0 { Output::Full } else { Output::Bytes(len) }
    }

    fn finish(&mut self, socket: Socket) {
        let mut state = self.state();
        let end = state.end(socket);
        assert!(!end.finished, "finished twice");
        end.finished = true;
    }

    fn close(&mut self, socket: Socket) {
        let closed = self.state().ends.remove(&socket);
        assert!(closed.is_some(), "closed twice");
    }
}
