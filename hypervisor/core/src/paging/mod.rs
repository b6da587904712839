//! Second-level paging: the tables that turn guest-physical into physical addresses, EPT on
//! Intel's processors and nested page tables on AMD's.
//!
//! Only memory is touched here, through [`Physical`](crate::physical::Physical); the instructions
//! that tell the processor of a change are the backends'.
