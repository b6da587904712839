//! The split virtqueue (section 2.7).
//!
//! ```text
//!            driver area (available ring)          device area (used ring)
//!            written by the driver                 written by the device
//! driver ──▶ [flags|idx|ring…|used_event]   ◀──▶   [flags|idx|ring…|avail_event] ◀── device
//!                       │ heads                              ▲ heads, bytes written
//!                       ▼                                    │
//!            descriptor table: [addr|len|flags|next] …  ─────┘
//! ```

pub(super) mod device;
pub(super) mod driver;
pub(super) mod layout;

/// Whether a notification is due under `VIRTIO_F_EVENT_IDX` (sections 2.7.7 and 2.7.10): an index
/// moved from `old` to `new`, and the other side asked to hear when it passes `event`.
pub(super) const fn passes(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Moves `index` on by one.
///
/// `told` is where it stood when the other side was last considered for a notification. It is
/// dragged along once it is a whole turn behind: else 65536 steps would look like none.
const fn step(index: &mut u16, told: &mut u16) {
    *index = index.wrapping_add(1);
    if *index == *told {
        *told = told.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{passes, step};

    #[test]
    fn an_event_is_due_when_the_index_steps_over_it() {
        assert!(passes(5, 5, 6));
        assert!(!passes(6, 5, 6));
        assert!(passes(u16::MAX, u16::MAX, 0));
        assert!(!passes(3, 7, 7));
    }

    #[test]
    #[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
    fn a_turn_of_65536_steps_without_asking_is_not_taken_for_none() {
        let (mut index, mut told) = (7, 7);
        for _ in 0..1 << 16 {
            step(&mut index, &mut told);
        }
        // All events but one have come up; that one is the next.
        let next = (0..=u16::MAX).filter(|event| !passes(*event, told, index));
        assert_eq!(next.collect::<Vec<_>>(), [index]);
    }
}
