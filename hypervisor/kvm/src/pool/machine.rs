//! One machine of a pool: a call, and how its state is put back.

use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use chiton_core::machine::End;
use chiton_shared::boot::{self, Generation};
use chiton_shared::call::Call;
use chiton_shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;
use kvm_ioctls::VmFd;

use super::dirty::{self, Dirty};
use super::limit::Limit;
use super::template::{self, CallMachine, Template};
use super::{CallError, Reply};
use crate::Error;

/// Where a guest looks whether it was put back.
const GENERATION: u64 = map::BOOT_PAGE + boot::GENERATION as u64;

/// What a call was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The request is put into the guest's memory.
    pub request: Duration,
    /// From the entry into KVM to the guest's reply.
    pub run: Duration,
    /// The reply is copied out.
    pub reply: Duration,
    /// Memory and registers are put back.
    pub reset: Duration,
    /// How many pages were put back.
    pub pages: usize,
}

/// One machine.
pub(super) struct Worker {
    machine: CallMachine,
    vm: VmFd,
    template: Arc<Template>,
    dirty: Dirty,
    /// What the guest said when it rang last.
    call: Call,
    /// Where the last request was put.
    request: Range<u64>,
    /// Whether it is to be told of a new generation.
    new: bool,
    /// The thread that ran it last: KVM takes a change amiss.
    pub(super) thread: Option<ThreadId>,
}

impl Worker {
    /// A copy of the guest that is ready.
    pub(super) fn new(template: &Arc<Template>) -> Result<Self, Error> {
        let (vm, machine) = template.copy()?;
        Ok(Self {
            machine,
            vm,
            template: Arc::clone(template),
            dirty: Dirty::new(&template.pristine),
            call: template.call,
            request: 0..0,
            new: true,
            thread: None,
        })
    }

    pub(super) fn limit(&self) -> &Arc<Limit> {
        &self.machine.board.limit
    }

    /// What the guest has printed since this was last asked.
    pub(super) fn take_output(&self) -> Vec<u8> {
        self.machine.board.devices.take_output()
    }

    /// Calls the guest. After an error that is not the caller's or the function's own, the machine is of no use
    /// any more.
    pub(super) fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, CallError> {
        self.put_request(request)?;
        let value = self.run()?;
        self.take_reply(value)
    }

    /// The same, with the time of each part.
    pub(super) fn call_timed(&mut self, request: &[u8]) -> Result<Reply, CallError> {
        let began = Instant::now();
        self.put_request(request)?;
        let entered = Instant::now();
        let value = self.run()?;
        let left = Instant::now();
        let bytes = self.take_reply(value)?;
        Ok(Reply {
            bytes,
            console: Vec::new(),
            phases: Some(Phases {
                request: entered - began,
                run: left - entered,
                reply: left.elapsed(),
                ..Phases::default()
            }),
        })
    }

    fn put_request(&mut self, request: &[u8]) -> Result<(), CallError> {
        let len = request.len() as u64;
        if len > self.call.room {
            return Err(CallError::TooLong {
                len,
                room: self.call.room,
            });
        }
        let record = Call {
            request_len: len,
            ..self.call
        };
        let ram = self.machine.board.ram.as_ref();
        let gone = || CallError::Record("room for a request that is not memory of its own");
        template::area(ram, self.call.request, len)
            .ok_or_else(gone)?
            .write(0, request);
        self.request = self.call.request..self.call.request + len;
        let bytes = record.to_bytes();
        let place = template::record_for_guest();
        let own = &bytes[chiton_shared::call::HOST..];
        ram.window(place, own.len()).ok_or_else(gone)?.write(0, own);
        if self.new {
            let generation = self.template.next_generation()?.to_bytes();
            ram.window(GENERATION, generation.len())
                .ok_or_else(gone)?
                .write(0, &generation);
            self.new = false;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<u32, CallError> {
        let end = template::run(&mut self.machine);
        match end? {
            End::Called(value) => {
                self.limit().end();
                Ok(value)
            }
            end => {
                self.limit().end();
                let ending = self.template.explain(&end, &mut self.machine)?;
                Err(CallError::Ended(ending))
            }
        }
    }

    fn take_reply(&mut self, value: u32) -> Result<Vec<u8>, CallError> {
        let ram = self.machine.board.ram.as_ref();
        self.call = template::record(ram)?;
        let window = template::area(ram, self.call.reply, self.call.reply_len);
        let window = window.ok_or(CallError::Record("a reply that is not memory of its own"))?;
        let mut reply = vec![0; window.len()];
        window.read(0, &mut reply);
        match value {
            0 => Ok(reply),
            code => Err(CallError::Failed { code, words: reply }),
        }
    }

    /// Puts everything back as it was when the guest was ready; tells how many pages that took.
    pub(super) fn put_back(&mut self) -> Result<usize, Error> {
        let board = &mut self.machine.board;
        let ram = board.ram.as_ref();
        let pristine = &self.template.pristine;
        let pages = self.dirty.put_back(&self.vm, ram, pristine)?;
        // What the host itself wrote, which KVM does not see.
        board.devices.put_back(&self.template.devices, |page| {
            dirty::put_back(ram, pristine, page, map::PAGE as usize);
        })?;
        dirty::put_back(ram, pristine, map::MAILBOX + MAILBOX_TEXT_OFFSET as u64, Call::SIZE);
        dirty::put_back(ram, pristine, GENERATION, Generation::SIZE);
        let Range { start, end } = self.request;
        dirty::put_back(ram, pristine, start, (end - start) as usize);
        self.template.ready.put_back(&mut self.machine.vcpu)?;
        self.call = self.template.call;
        self.new = true;
        Ok(pages)
    }

    /// Where memory is another than when the guest was ready.
    pub(super) fn first_difference(&self) -> Option<u64> {
        let (ram, pristine) = (&self.machine.board.ram, &self.template.pristine);
        let mut now = [0; map::PAGE as usize];
        let pages = pristine.pieces().flat_map(|piece| piece.step_by(map::PAGE as usize));
        for page in pages {
            let window = ram.window(page, map::PAGE as usize)?;
            let before = pristine.bytes(page, map::PAGE as usize)?;
            window.read(0, &mut now);
            if *before != now {
                let offset = before.iter().zip(&now).position(|(before, now)| before != now);
                return offset.map(|offset| page + offset as u64);
            }
        }
        None
    }

    /// Whether this thread is the one that ran it last, or nobody has.
    pub(super) fn is_at_home(&self) -> bool {
        self.thread.is_none_or(|thread| thread == thread::current().id())
    }
}
