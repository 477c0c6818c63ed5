//! A sole voter that elects itself and commits a command, in a program without std.
//!
//! It has its own panic handler and its own allocator. If raft-core, or anything that it depends
//! on, linked std, there would be two of each, and this would not compile: that it does is the
//! proof. It exits with 0 if the command was committed.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

use raft_core::{
    Boot, ClusterId, Config, Durable, Effect, Event, Identity, Index, Limits, Member, Membership, Message, NodeId,
    Raft, RequestId, StoreId, Time, Timing,
};

/// Hands out memory from a fixed block and never takes it back; a short program needs no more.
///
/// The workspace forbids unsafe code. An allocator cannot do without, which is one reason why
/// this program is not a member of it.
struct Bump {
    used: AtomicUsize,
}

const BLOCK: usize = 1 << 20;

#[repr(align(16))]
struct Block(core::cell::UnsafeCell<[u8; BLOCK]>);

// SAFETY: every byte is handed out at most once.
unsafe impl Sync for Block {}

static MEMORY: Block = Block(core::cell::UnsafeCell::new([0; BLOCK]));

// SAFETY: the ranges handed out lie within the block, are aligned, and never overlap, because
// `used` only grows.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let needed = layout.size() + layout.align();
        let start = self.used.fetch_add(needed, Ordering::Relaxed);
        if start + needed > BLOCK {
            return core::ptr::null_mut();
        }
        let base = MEMORY.0.get().cast::<u8>().wrapping_add(start);
        base.wrapping_add(base.align_offset(layout.align()))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump { used: AtomicUsize::new(0) };

#[link(name = "c")]
unsafe extern "C" {
    fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { abort() }
}

/// The precompiled `alloc` mentions this even where nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}

/// The command line does not matter; the exit code says everything.
#[unsafe(no_mangle)]
extern "C" fn main(_: core::ffi::c_int, _: *const *const core::ffi::c_char) -> core::ffi::c_int {
    i32::from(committed() != Some(Index::new(2)))
}

/// How far a sole voter commits when a client proposes one command.
fn committed() -> Option<Index> {
    let (node, store) = (NodeId::new(1)?, StoreId::new(1));
    let identity = Identity { cluster: ClusterId::new(7), node, store, boot: Boot::new(1) };
    let durable = Durable::first_boot(identity, Membership::new([Member { node, store }]).ok()?);
    let mut raft = Raft::new(Config::new(Timing::LAN, Limits::DEFAULT, 1).ok()?, durable).ok()?;
    let propose = Event::Propose { request: RequestId::new(1), command: Default::default() };
    let mut effects = raft.step(Message { at: Time::ZERO, event: Event::Tick });
    let mut proposal = Some(propose);
    while let Some(effect) = effects.pop() {
        if let Effect::Persist { seq, .. } = effect {
            effects.extend(raft.step(Message { at: Time::ZERO, event: Event::Persisted { seq } }));
        }
        if effects.is_empty()
            && let Some(event) = proposal.take()
        {
            effects = raft.step(Message { at: Time::ZERO, event });
        }
    }
    Some(raft.status().log.commit)
}
