//! The stack that all sockets of a guest are on: smoltcp over the driver, and what it waits for.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use chiton_shared::boot::DeviceEntry;
use chiton_shared::virtio::id;
use chiton_shared::virtio::net::{RECEIVE, TRANSMIT, control_queue};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use spin::Mutex;

use super::NetError;
use super::driver::{BLOCKS, Receive, Traits, Transmit, leak_blocks, set_pairs};
use super::tcp::Listening;
use super::{Source, dhcp, phy, resolve};
use crate::host::Doorbells;
use crate::queue::{Exits, Queue, QueueError};
use crate::time::{self, Instant};
use crate::{boot, env};

/// How many frames are taken in before anything is sent.
const BURST: usize = 256;

/// How long a connection that nobody holds any more may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(10);

/// How many connections may linger after their end, as TCP wants it.
const LINGERING: usize = 32;

static STACK: Mutex<Option<Box<Stack>>> = Mutex::new(None);

/// The stack.
pub(super) struct Stack {
    pub(super) interface: Interface,
    device: phy::Interface<'static, Doorbells>,
    pub(super) sockets: SocketSet<'static>,
    pub(super) listeners: Vec<Option<Listening>>,
    /// Connections that nobody holds any more, each until when at the longest.
    leaving: VecDeque<(SocketHandle, Instant)>,
    next_port: u16,
    dhcp: Option<SocketHandle>,
    /// The DNS servers.
    pub(super) servers: Vec<IpAddr>,
}

/// Does something with the stack, which is opened by that.
pub(super) fn with<R>(f: impl FnOnce(&mut Stack) -> Result<R, NetError>) -> Result<R, NetError> {
    let mut stack = STACK.lock();
    if stack.is_none() {
        *stack = Some(Box::new(Stack::open(0)?));
    }
    stack.as_deref_mut().map_or(Err(NetError::Missing), f)
}

/// Sleeps until `f` has an answer, while frames come and go.
pub(super) fn block<R>(mut f: impl FnMut(&mut Stack) -> Result<Option<R>, NetError>) -> Result<R, NetError> {
    loop {
        let (answer, until) = with(|stack| {
            stack.poll()?;
            if let Some(answer) = f(stack)? {
                return Ok((Some(answer), None));
            }
            Ok((None, stack.prepare_sleep(None)?))
        })?;
        match (answer, until) {
            (Some(answer), _) => return Ok(answer),
            (None, Some(sleep)) => sleep.sleep(),
            (None, None) => {}
        }
    }
}

/// Lets frames come and go, and sleeps until some have come, a timer has run out, or `deadline`.
pub(super) fn wait(deadline: Option<Instant>) -> Result<(), NetError> {
    let sleep = with(|stack| {
        if stack.poll()? {
            return Ok(None);
        }
        stack.prepare_sleep(deadline)
    })?;
    if let Some(sleep) = sleep {
        sleep.sleep();
        with(Stack::poll)?;
    }
    Ok(())
}

/// The queues of a pair.
type Pair<'s> = (
    &'s mut Receive<'static, Doorbells>,
    &'s mut Transmit<'static, Doorbells>,
);

/// As [`wait`], for what comes by one pair of queues, if this processor can halt for that.
pub(super) fn wait_for(pair: usize, deadline: Option<Instant>) -> Result<(), NetError> {
    let sleep = with(|stack| {
        if stack.poll()? {
            return Ok(None);
        }
        stack.prepare_halt(pair, deadline)
    })?;
    if let Some(sleep) = sleep {
        sleep.sleep();
        with(Stack::poll)?;
    }
    Ok(())
}

/// A sleep that everything has been prepared for.
pub(super) enum Sleep {
    /// For whatever comes, and at most until then.
    Any(Option<Instant>),
    /// For what this processor gets the interrupt of.
    Own(Option<Instant>),
}

impl Sleep {
    fn sleep(self) {
        match self {
            Self::Any(until) => time::wait(until),
            Self::Own(until) => time::halt(until),
        }
    }
}

fn now() -> smoltcp::time::Instant {
    let micros = time::uptime().as_micros();
    smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Stack {
    /// Opens interface number `index`, with the address that the environment has for it.
    #[inline(never)]
    fn open(index: usize) -> Result<Self, NetError> {
        let entry = boot::devices(id::NET).nth(index).ok_or(NetError::Missing)?;
        let source = super::source_of(index)?;
        let gateway = super::gateway_of(index)?;
        let mut device = open_device(entry)?;
        let mac = EthernetAddress(device.traits.mac);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        let [a, b, c, d, e, f, g, h, ..] = boot::page().seed;
        config.random_seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ time::ticks();
        let mut interface = Interface::new(config, &mut device, now());
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = match source {
            Source::Given(address, prefix) => {
                interface.update_ip_addrs(|addresses| {
                    let _ = addresses.push(IpCidr::new(address.into(), prefix));
                });
                None
            }
            Source::Dhcp => Some(dhcp::start(&mut sockets)),
        };
        let routes = interface.routes_mut();
        let routed = match gateway {
            Some(IpAddr::V4(gateway)) => routes.add_default_ipv4_route(gateway).is_ok(),
            Some(IpAddr::V6(gateway)) => routes.add_default_ipv6_route(gateway).is_ok(),
            None => true,
        };
        if !routed {
            return Err(NetError::Configuration);
        }
        let first = 0xC000 + (u16::from_le_bytes([a, b]) & 0x3FFF);
        let mut stack = Self {
            interface,
            device,
            sockets,
            listeners: Vec::new(),
            leaving: VecDeque::new(),
            next_port: first,
            dhcp,
            servers: variable(index, "DNS").map(resolve::list).unwrap_or_default(),
        };
        if dhcp.is_some() {
            stack.wait_for_lease()?;
        }
        Ok(stack)
    }

    /// Sleeps until a DHCP server has given an address. Nobody else can use the network before.
    fn wait_for_lease(&mut self) -> Result<(), NetError> {
        let end = Instant::now() + dhcp::PATIENCE;
        loop {
            self.poll()?;
            if self.address().is_some() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(NetError::NoLease(dhcp::PATIENCE.as_secs()));
            }
            if let Some(sleep) = self.prepare_sleep(Some(end))? {
                sleep.sleep();
            }
        }
    }

    /// The interface's address and the length of its prefix, if it has one now.
    pub(super) fn address(&self) -> Option<(IpAddr, u8)> {
        let first = self.interface.ip_addrs().first()?;
        Some((first.address().into(), first.prefix_len()))
    }

    /// Lets frames come and go; whether that may have changed a socket.
    pub(super) fn poll(&mut self) -> Result<bool, NetError> {
        let now = now();
        let mut changed = false;
        self.device.transmit.iter_mut().for_each(Transmit::collect);
        for _ in 0..BURST {
            let result = self
                .interface
                .poll_ingress_single(now, &mut self.device, &mut self.sockets);
            match result {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => {
                    changed = true;
                    self.refill();
                }
            }
        }
        while let PollResult::SocketStateChanged = self.interface.poll_egress(now, &mut self.device, &mut self.sockets)
        {
            changed = true;
            if !self.device.has_room() {
                break;
            }
        }
        if let Some(dhcp) = self.dhcp {
            dhcp::follow(dhcp, &mut self.sockets, &mut self.interface, &mut self.servers);
        }
        self.reap();
        let failed = self.device.transmit.iter().find_map(Transmit::failed);
        let failed = self.device.failed.or(failed);
        failed.map_or(Ok(changed), |error| Err(error.into()))
    }

    /// Tells the device of everything it wants to hear of, for who does not sleep.
    pub(super) fn tell(&mut self) {
        self.device.receive.iter_mut().for_each(Receive::kick);
        self.device.transmit.iter_mut().for_each(Transmit::kick);
    }

    /// Prepares a sleep until frames come, a timer runs out, or `deadline`; `None` if there is
    /// something to do already.
    pub(super) fn prepare_sleep(&mut self, deadline: Option<Instant>) -> Result<Option<Sleep>, NetError> {
        let received = self.device.receive.iter_mut().any(Receive::arm);
        let full = |transmit: &mut Transmit<'_, Doorbells>| transmit.is_full() && transmit.arm();
        if received || self.device.transmit.iter_mut().any(full) {
            return Ok(None);
        }
        self.device.transmit.iter_mut().for_each(Transmit::about_to_sleep);
        Ok(Some(Sleep::Any(self.until(deadline))))
    }

    /// The same for one pair, of which this processor has the interrupts; for all if it does not, or does not
    /// halt.
    fn prepare_halt(&mut self, pair: usize, deadline: Option<Instant>) -> Result<Option<Sleep>, NetError> {
        let (receive, transmit) = self.pair(pair)?;
        if !receive.halts_here() {
            return self.prepare_sleep(deadline);
        }
        if receive.arm() || transmit.is_full() && transmit.arm() {
            return Ok(None);
        }
        // Nobody looks at the queues meanwhile.
        self.tell();
        Ok(Some(Sleep::Own(self.until(deadline))))
    }

    /// Has the interrupts of a pair come to this processor.
    pub(super) fn bind(&mut self, pair: usize) -> Result<(), NetError> {
        let (receive, transmit) = self.pair(pair)?;
        receive.bind();
        transmit.bind();
        Ok(())
    }

    /// How many pairs are in use.
    pub(super) const fn pairs(&self) -> usize {
        self.device.receive.len()
    }

    fn pair(&mut self, pair: usize) -> Result<Pair<'_>, NetError> {
        let both = self
            .device
            .receive
            .get_mut(pair)
            .zip(self.device.transmit.get_mut(pair));
        Ok(both.ok_or(QueueError::Missing(2 * pair))?)
    }

    /// When a sleep has to end at the latest.
    fn until(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let delay = self.interface.poll_delay(now(), &self.sockets);
        let timer = delay.map(|delay| Instant::now() + Duration::from_micros(delay.total_micros()));
        let goodbye = self.leaving.front().map(|(_, until)| *until);
        [deadline, timer, goodbye].into_iter().flatten().min()
    }

    /// Gives every listener its sockets back.
    pub(super) fn refill(&mut self) {
        for listener in self.listeners.iter_mut().flatten() {
            listener.refill(&mut self.sockets);
        }
    }

    /// From now on nobody holds this connection.
    pub(super) fn leave(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        self.leaving.push_back((handle, Instant::now() + GOODBYE));
    }

    /// Lets go of connections that have ended, or take too long for it.
    fn reap(&mut self) {
        let mut lingering = 0;
        let now = Instant::now();
        let sockets = &mut self.sockets;
        for (handle, _) in &self.leaving {
            lingering += usize::from(sockets.get::<tcp::Socket<'_>>(*handle).state() == tcp::State::TimeWait);
        }
        self.leaving.retain(|(handle, until)| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            let over = match socket.state() {
                tcp::State::Closed => true,
                tcp::State::TimeWait if lingering > LINGERING => {
                    lingering -= 1;
                    true
                }
                tcp::State::TimeWait => now >= *until,
                _ if now >= *until => {
                    socket.abort();
                    false
                }
                _ => false,
            };
            if over {
                sockets.remove(*handle);
            }
            !over
        });
    }

    /// Connects a new socket.
    pub(super) fn connect(&mut self, to: core::net::SocketAddr, buffer: usize) -> Result<SocketHandle, NetError> {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(0xC000);
        let handle = self.sockets.add(super::tcp::socket(buffer, buffer));
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if socket.connect(self.interface.context(), to, port).is_err() {
            self.sockets.remove(handle);
            return Err(NetError::Unaddressable(to));
        }
        Ok(handle)
    }

    /// What the driver knows of its device.
    pub(super) const fn traits(&self) -> Traits {
        self.device.traits
    }

    /// How often the driver rang so far.
    pub(super) fn exits(&self) -> Exits {
        let receive = self.device.receive.iter().map(Receive::exits);
        let all = receive.chain(self.device.transmit.iter().map(Transmit::exits));
        all.fold(Exits::default(), |sum, one| Exits {
            kicks: sum.kicks + one.kicks,
            waits: sum.waits + one.waits,
        })
    }
}

fn open_device(entry: &DeviceEntry) -> Result<phy::Interface<'static, Doorbells>, NetError> {
    // A locally administered address of one station.
    let [.., a, b, c, d, e, f] = boot::page().seed;
    let local = [a & !1 | 2, b, c, d, e, f];
    let traits = Traits::new(&entry.config, entry.features, local).ok_or(NetError::Configuration)?;
    let mut pairs = 1;
    if traits.pairs > 1
        && let Some(control) = control_queue(entry.features, traits.pairs)
        && set_pairs(open_queue(entry, control)?.as_mut(), traits.pairs)?
    {
        pairs = usize::from(traits.pairs);
    }
    let mut interface = phy::Interface {
        receive: Vec::with_capacity(pairs),
        transmit: Vec::with_capacity(pairs),
        turn: 0,
        traits,
        failed: None,
    };
    for pair in 0..pairs {
        let queue = open_queue(entry, 2 * pair + RECEIVE)?;
        // All together have as many blocks as one would, but each enough for some of the longest
        // frames.
        let blocks = (BLOCKS / pairs).max(BLOCKS / 4).min(queue.size().into());
        interface
            .receive
            .push(Receive::new(queue, leak_blocks(blocks), entry.features)?);
        let queue = open_queue(entry, 2 * pair + TRANSMIT)?;
        interface.transmit.push(Transmit::new(queue, entry.features));
    }
    Ok(interface)
}

/// A queue, at once where it stays: it is larger than a guest's stack has pages to spare.
#[inline(never)]
fn open_queue(entry: &DeviceEntry, index: usize) -> Result<Box<Queue<'static, Doorbells>>, NetError> {
    // SAFETY: the boot page describes queues as the contract has it, and the stack is opened once.
    let queue = unsafe { Queue::open(entry, index, Doorbells)? };
    Ok(Box::new(queue))
}

/// The value of the environment's variable `CHITON_NET<index>_<what>`.
pub(super) fn variable(index: usize, what: &str) -> Option<&'static str> {
    env::vars().find_map(|(key, value)| {
        let (number, name) = key.strip_prefix("CHITON_NET")?.split_once('_')?;
        (name == what && number.parse() == Ok(index)).then_some(value)
    })
}
