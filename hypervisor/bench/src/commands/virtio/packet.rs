//! Raw Ethernet frames by a packet socket (packet(7)): no protocol above is in the way.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    bind, netdevice, socket_with, sockopt,
};

/// For local experiments (IEEE Std 802): the host's own protocols leave it alone.
const ETHER_TYPE: u16 = 0x88B5;
/// How long a frame may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Room for every frame of a flood.
const RECEIVE_BUFFER: usize = 128 << 20;
const LONGEST: usize = 2048;

/// One end of a link.
#[derive(Debug)]
pub(super) struct Packets(File);

/// `struct sockaddr_ll`, as far as binding needs it.
#[repr(C)]
struct Address {
    family: u16,
    /// In the order of the network.
    protocol: u16,
    index: u32,
    rest: [u8; 12],
}

// SAFETY: the pointer is to a `sockaddr_ll` of that length, which lives until `f` returns.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// Sends past the queueing discipline, which the kernel puts in place some time after a guest has
/// opened the TAP device, and which drops all frames until then.
fn bypass_queueing(socket: &OwnedFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let option = libc::PACKET_QDISC_BYPASS;
    // SAFETY: the option is an `int`, given with its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const yes).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Packets {
    /// All frames of [`ETHER_TYPE`] of the interface with this name, in the namespace of this thread.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let family = AddressFamily::PACKET;
        // No protocol: nothing is received before the socket is bound.
        let socket: OwnedFd = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let address = Address {
            family: family.as_raw(),
            protocol: ETHER_TYPE.to_be(),
            index: netdevice::name_to_index(&socket, interface)?,
            rest: [0; 12],
        };
        bypass_queueing(&socket)?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        bind(&socket, &address)?;
        Ok(Self(File::from(socket)))
    }

    /// A frame of so many bytes to everyone.
    fn frame(bytes: usize) -> Vec<u8> {
        let mut frame = vec![0xFF; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ETHER_TYPE.to_be_bytes());
        frame.resize(bytes, b'x');
        frame
    }

    /// Sends frames of 60 bytes, each when the one before has come back; returns the seconds a
    /// round takes.
    pub(super) fn ping(&mut self, rounds: u32) -> io::Result<f64> {
        let frame = Self::frame(60);
        let mut back = [0; LONGEST];
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            let start = Instant::now();
            self.0.write_all(&frame)?;
            let _ = self.0.read(&mut back)?;
            spent += start.elapsed();
            // The other end is asleep when the next one comes.
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(spent.as_secs_f64() / f64::from(rounds))
    }

    /// Sends so many frames and waits for the answer to all of them; returns the seconds.
    pub(super) fn pour(&mut self, count: u32, bytes: usize) -> io::Result<f64> {
        let frame = Self::frame(bytes);
        let start = Instant::now();
        for _ in 0..count {
            self.0.write_all(&frame)?;
        }
        let _ = self.0.read(&mut [0; LONGEST])?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Asks for so many frames and takes them in; returns the seconds.
    pub(super) fn draw(&mut self, count: u32) -> io::Result<f64> {
        let mut frame = [0; LONGEST];
        let start = Instant::now();
        self.0.write_all(&Self::frame(60))?;
        for _ in 0..count {
            let _ = self.0.read(&mut frame)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// The other end of [`ping`](Self::ping).
    pub(super) fn echo(&mut self, rounds: u32) -> io::Result<()> {
        let mut frame = [0; LONGEST];
        for _ in 0..rounds {
            let len = self.0.read(&mut frame)?;
            self.0.write_all(&frame[..len])?;
        }
        Ok(())
    }

    /// The other end of [`pour`](Self::pour).
    pub(super) fn take(&mut self, count: u32) -> io::Result<()> {
        let mut frame = [0; LONGEST];
        for _ in 0..count {
            let _ = self.0.read(&mut frame)?;
        }
        self.0.write_all(&frame[..60])
    }

    /// The other end of [`draw`](Self::draw).
    pub(super) fn send(&mut self, count: u32, bytes: usize) -> io::Result<()> {
        let _ = self.0.read(&mut [0; LONGEST])?;
        let frame = Self::frame(bytes);
        (0..count).try_for_each(|_| self.0.write_all(&frame))
    }
}
