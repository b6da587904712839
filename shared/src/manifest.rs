//! The manifest: what a guest states about itself, in an ELF note.
//!
//! Section `.note.chiton` (in a `PT_NOTE` segment) holds one note of owner [`OWNER`] and type
//! [`NOTE_TYPE`] whose descriptor is a [`Manifest`]. The host reads it before it makes a machine
//! and refuses what it cannot give.

use crate::ABI_VERSION;

/// Name of the section.
pub const SECTION: &str = ".note.chiton";
/// The note's owner, without its NUL.
pub const OWNER: &str = "chiton";
/// The note's type.
pub const NOTE_TYPE: u32 = 1;

/// The ring a guest's code runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Ring 0: the guest may use privileged instructions, and break its own page tables.
    Kernel,
    /// Ring 3: the default. The TSS opens the [doorbells](crate::doorbell) to it.
    User,
}

impl Ring {
    /// The ring's number, 0 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Kernel => 0,
            Self::User => 3,
        }
    }
}

/// A set of features, as bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature(pub u64);

impl Feature {
    /// No feature.
    pub const NONE: Self = Self(0);
    /// A virtio console.
    pub const CONSOLE: Self = Self(1 << 0);
    /// At least one virtio block device, that is `--disk`.
    pub const BLOCK: Self = Self(1 << 1);
    /// A virtio entropy device.
    pub const ENTROPY: Self = Self(1 << 2);
    /// The code uses SSE registers, which a software KVM cannot run in ring 0.
    pub const SSE: Self = Self(1 << 3);
    /// At least one virtio network device, that is `--net`.
    pub const NET: Self = Self(1 << 4);
    /// A local APIC for each processor, and [interrupts](crate::interrupts).
    pub const INTERRUPTS: Self = Self(1 << 5);

    /// Every feature this version knows.
    pub const KNOWN: Self = Self(0b11_1111);

    /// Names of the known features, lowest bit first.
    pub const NAMES: [&str; 6] = ["console", "block", "entropy", "sse", "net", "interrupts"];

    /// Whether all of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What of this set this version does not know.
    #[must_use]
    pub const fn unknown(self) -> Self {
        Self(self.0 & !Self::KNOWN.0)
    }
}

/// The descriptor of the note.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// [`ABI_VERSION`] of the guest library.
    pub abi: u32,
    /// Number of the ring: 0 or 3.
    pub ring: u32,
    /// Features without which the guest does not work.
    pub required: Feature,
    /// Features it can use.
    pub optional: Feature,
    /// Stack, in bytes; rounded up to whole pages.
    pub stack: u64,
    /// Least heap, in bytes. The guest gets all memory that is left.
    pub heap: u64,
}

/// Why bytes are not a manifest of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The descriptor has this length, not [`Manifest::SIZE`].
    #[error("the manifest is {0} bytes long instead of {len}", len = Manifest::SIZE)]
    Length(usize),
    /// The guest was built for this version of the ABI.
    #[error(
        "the guest speaks ABI version {0}, this hypervisor version {ABI_VERSION}: build both from the same release"
    )]
    Abi(u32),
}

impl Manifest {
    /// Size of the descriptor, in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// The stack a guest gets if it asks for nothing else, in bytes.
    pub const DEFAULT_STACK: u64 = 64 << 10;

    /// The least heap a guest gets if it asks for nothing else, in bytes.
    pub const DEFAULT_HEAP: u64 = 256 << 10;

    /// A manifest with the default stack and heap and no features.
    #[must_use]
    pub const fn new(ring: Ring) -> Self {
        Self {
            abi: ABI_VERSION,
            ring: ring.number() as u32,
            required: Feature::NONE,
            optional: Feature::NONE,
            stack: Self::DEFAULT_STACK,
            heap: Self::DEFAULT_HEAP,
        }
    }

    /// With a stack of this many bytes.
    #[must_use]
    pub const fn stack(mut self, bytes: u64) -> Self {
        self.stack = bytes;
        self
    }

    /// With a heap of at least this many bytes.
    #[must_use]
    pub const fn heap(mut self, bytes: u64) -> Self {
        self.heap = bytes;
        self
    }

    /// With these features required too.
    #[must_use]
    pub const fn require(mut self, features: Feature) -> Self {
        self.required = self.required.union(features);
        self
    }

    /// The ring asked for; `None` if its number is neither 0 nor 3.
    #[must_use]
    pub const fn ring(&self) -> Option<Ring> {
        match self.ring {
            0 => Some(Ring::Kernel),
            3 => Some(Ring::User),
            _ => None,
        }
    }

    /// The descriptor's bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        // SAFETY: `repr(C)`, two u32 and four u64 with no padding (size asserted below), and any
        // byte array of the same size is valid.
        unsafe { core::mem::transmute(self) }
    }

    /// Reads a descriptor.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] if it has another length or another ABI version. Nothing else is
    /// checked: ring and features may still be ones that do not exist.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_le_bytes)
        };
        let quad = |at: usize| {
            bytes
                .get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_le_bytes)
        };
        let wrong_length = ManifestError::Length(bytes.len());
        let abi = word(0).ok_or(wrong_length)?;
        if abi != ABI_VERSION {
            return Err(ManifestError::Abi(abi));
        }
        if bytes.len() != Self::SIZE {
            return Err(wrong_length);
        }
        Ok(Self {
            abi,
            ring: word(4).ok_or(wrong_length)?,
            required: Feature(quad(8).ok_or(wrong_length)?),
            optional: Feature(quad(16).ok_or(wrong_length)?),
            stack: quad(24).ok_or(wrong_length)?,
            heap: quad(32).ok_or(wrong_length)?,
        })
    }
}

/// The whole note, ready to stand in [`SECTION`].
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct Note {
    name_size: u32,
    descriptor_size: u32,
    note_type: u32,
    name: [u8; 8],
    descriptor: [u8; Manifest::SIZE],
}

impl Note {
    /// The note that carries `manifest`.
    #[must_use]
    pub const fn new(manifest: Manifest) -> Self {
        Self {
            name_size: OWNER.len() as u32 + 1,
            descriptor_size: Manifest::SIZE as u32,
            note_type: NOTE_TYPE,
            name: *b"chiton\0\0",
            descriptor: manifest.to_bytes(),
        }
    }
}

const _: () = {
    assert!(Manifest::SIZE == 40);
    assert!(size_of::<Note>() == 12 + 8 + Manifest::SIZE);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_abi_version_is_named() {
        let mut bytes = Manifest::new(Ring::User).to_bytes();
        bytes[0] = 99;
        assert_eq!(Manifest::from_bytes(&bytes), Err(ManifestError::Abi(99)));
    }

    #[test]
    fn every_other_length_is_refused() {
        let bytes = Manifest::new(Ring::User).to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Manifest::from_bytes(&bytes[..len]), Err(ManifestError::Length(len)));
        }
    }

    #[test]
    fn unknown_features_are_singled_out() {
        assert_eq!(Feature(1 << 40 | 1).unknown(), Feature(1 << 40));
        assert_eq!(Feature::NAMES.len() as u32, Feature::KNOWN.0.count_ones());
    }
}
