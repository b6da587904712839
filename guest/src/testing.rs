//! A machine for tests: one device whose queue is served when the driver kicks or sleeps.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::feature;
use chiton_shared::virtio::ring::{Areas, Buffer, Chain, DeviceQueue, Format, QueueConfig};

use crate::host::Host;
use crate::queue::{Port, Queue};

/// The test process's own memory at its own addresses, as a guest sees its own.
pub(crate) struct Identity;

impl GuestMemory for Identity {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let start = NonNull::new(core::ptr::with_exposed_provenance_mut(address as usize))?;
        // SAFETY: the drivers under test pass buffers that live, which is what their tests are
        // about (and what Miri checks).
        Some(unsafe { Window::new(start, len) })
    }
}

/// What the driver gave a device to read, which may be memory that nobody may write.
pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    let start: *const u8 = core::ptr::with_exposed_provenance(buffer.address as usize);
    // SAFETY: as in `Identity`; the driver under test waits meanwhile.
    unsafe { core::slice::from_raw_parts(start, buffer.len as usize) }.to_vec()
}

/// What a device does with a chain: how many bytes it wrote, or `None` to keep it.
type Serve = Box<dyn FnMut(&Chain, &Identity) -> Option<u32>>;

struct Device {
    queue: DeviceQueue,
    serve: Serve,
}

/// A machine with one device.
pub(crate) struct Machine {
    memory: NonNull<u8>,
    layout: Layout,
    config: QueueConfig,
    features: u64,
    device: RefCell<Device>,
    kicks: Cell<usize>,
    waits: Cell<usize>,
    resets: Cell<usize>,
    /// While the device has no queue: how often that is still to be asked before the reset is over.
    off: Cell<Option<u32>>,
    stopped: Cell<bool>,
    /// What the last kick with data said of the driver's place.
    pub(crate) notified: Cell<Option<u16>>,
    /// What [`Host::look_ns`] says.
    pub(crate) look_ns: Cell<u64>,
    /// A clock that goes on when somebody looks at it.
    now_ns: Cell<u64>,
    /// Whether the device works when it is kicked, or only when the driver sleeps.
    pub(crate) serves_kicks: Cell<bool>,
    /// The first words of the device's configuration.
    pub(crate) config_words: [Cell<u32>; 2],
}

impl Machine {
    /// A device with all features of the ring and a queue of this size.
    pub(crate) fn new(size: u16, serve: impl FnMut(&Chain, &Identity) -> Option<u32> + 'static) -> Self {
        Self::with_features(size, feature::RING, serve)
    }

    /// A device with these features.
    pub(crate) fn with_features(
        size: u16,
        features: u64,
        serve: impl FnMut(&Chain, &Identity) -> Option<u32> + 'static,
    ) -> Self {
        let layout = Layout::from_size_align(1 << 14, 4096).unwrap();
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let (config, _) = QueueConfig::packed_at(memory.as_ptr().expose_provenance() as u64, size);
        let device = Device {
            queue: DeviceQueue::new(config, features),
            serve: Box::new(serve),
        };
        Self {
            memory,
            layout,
            config,
            features,
            device: RefCell::new(device),
            kicks: Cell::new(0),
            waits: Cell::new(0),
            resets: Cell::new(0),
            off: Cell::new(None),
            stopped: Cell::new(false),
            notified: Cell::new(None),
            look_ns: Cell::new(0),
            now_ns: Cell::new(0),
            serves_kicks: Cell::new(true),
            config_words: Default::default(),
        }
    }

    /// The driver's side of the queue.
    pub(crate) fn queue(&self) -> Queue<'_, &Self> {
        Queue::new(
            self.areas(),
            self.config.size,
            self.features,
            0,
            Port {
                kick: 0xC40,
                registers: 0,
            },
            self,
        )
        .unwrap()
    }

    /// The parts of the queue, for a device that breaks the rules.
    pub(crate) fn areas(&self) -> Areas<'_> {
        Areas::find_as(Format::of(self.features), &Identity, &self.config).unwrap()
    }

    /// From now on the device does nothing, and says that it needs a reset.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
    }

    pub(crate) fn kicks(&self) -> usize {
        self.kicks.get()
    }

    pub(crate) fn waits(&self) -> usize {
        self.waits.get()
    }

    pub(crate) fn resets(&self) -> usize {
        self.resets.get()
    }

    /// Works on the queue; whether the driver wants to know.
    pub(crate) fn serve(&self) -> bool {
        if self.stopped.get() || self.off.get().is_some() {
            return false;
        }
        let Device { queue, serve } = &mut *self.device.borrow_mut();
        let mut queue = queue.attach(&Identity).unwrap();
        let mut chain = Chain::new();
        loop {
            while queue.pop(&mut chain).unwrap() {
                if let Some(written) = serve(&chain, &Identity) {
                    queue.push(chain.head(), written);
                }
            }
            if !queue.enable_kicks() {
                return queue.wants_notification();
            }
        }
    }
}

impl Host for &Machine {
    fn kick(&self, port: u16, queue: u16) {
        assert_eq!((port, queue), (0xC40, 0));
        self.kicks.set(self.kicks.get() + 1);
        if self.serves_kicks.get() {
            self.serve();
        }
    }

    fn notify(&self, _registers: u64, data: u32) {
        assert_eq!(data & 0xffff, 0);
        let mut device = self.device.borrow_mut();
        let ring = device.queue.attach(&Identity).unwrap();
        assert!(ring.has_come_to((data >> 16) as u16), "{data:#x}");
        drop(device);
        self.notified.set(Some((data >> 16) as u16));
        self.serve();
    }

    fn wait(&self, _ns: u64) {
        self.waits.set(self.waits.get() + 1);
        let news = self.serve();
        assert!(
            news || self.stopped.get(),
            "the driver sleeps and nothing would ever wake it"
        );
    }

    fn needs_reset(&self, _registers: u64) -> bool {
        self.stopped.get()
    }

    fn reset(&self, _registers: u64) {
        self.resets.set(self.resets.get() + 1);
    }

    fn write_queue_reset(&self, _registers: u64, queue: u16, value: u32) {
        assert_eq!((queue, value, self.off.get()), (0, 1, None));
        self.off.set(Some(2));
    }

    fn read_queue_reset(&self, _registers: u64, queue: u16) -> u32 {
        let left = self.off.get().unwrap();
        assert_eq!(queue, 0);
        self.off.set(Some(left.saturating_sub(1)));
        u32::from(left > 0)
    }

    unsafe fn set_up_queue(&self, _registers: u64, queue: u16, config: &QueueConfig) {
        assert_eq!((queue, config, self.off.take()), (0, &self.config, Some(0)));
        self.device.borrow_mut().queue = DeviceQueue::new(*config, self.features);
    }

    fn read_config(&self, _registers: u64, offset: u64) -> u32 {
        self.config_words[offset as usize / 4].get()
    }

    fn read_config_half(&self, _registers: u64, offset: u64) -> u16 {
        (self.config_words[offset as usize / 4].get() >> (offset % 4 * 8)) as u16
    }

    fn look_ns(&self) -> u64 {
        self.look_ns.get()
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.set(self.now_ns.get() + 1);
        self.now_ns.get()
    }

    fn write_config(&self, _registers: u64, offset: u64, value: u32) {
        self.config_words[offset as usize / 4].set(value);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `with_features`.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}
