//! Layer 0: the numbers of Raft, each with a type of its own.
//!
//! A term cannot be passed where an index is wanted, and arithmetic is named: `index.next()`,
//! not `index + 1`. Nothing here dereferences to an integer.

use core::fmt;
use core::num::NonZeroU64;
use core::time::Duration;

/// Declares a counter-like newtype over `u64` with a `Display` of its bare number.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(u64);

        impl $name {
            /// The first value, before anything has happened.
            pub const ZERO: Self = Self(0);

            /// Wraps a bare number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare number, for encoding and printing.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The value after this one; saturates instead of wrapping.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A term: Raft's logical clock, §5.1. Term 0 precedes every election.
    Term
}
number! {
    /// A position in the log. The first entry has index 1; index 0 precedes all entries.
    Index
}
number! {
    /// How often a store has been opened; raised durably at every start.
    Boot
}
number! {
    /// The identity of one write to stable storage. Never reused within one boot, so that the
    /// late completion of an old write cannot be taken for that of a newer one.
    WriteSeq
}
number! {
    /// A leader's message round. Whoever answers round `r` has accepted the leader after `r` was sent.
    Round
}
number! {
    /// Names a request of this process, chosen by the caller; it comes back in exactly one answer.
    RequestId
}
number! {
    /// Names one read from the cold part of the log.
    ReadId
}

impl Index {
    /// The index before this one; saturates at 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This index moved up by `count`; saturates.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How many indices lie between `earlier` and this one; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Names one member of a cluster; never 0 and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// Wraps a bare number; `None` for 0.
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The bare number, for encoding and printing.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

/// `n1`, as everywhere in logs, scripts and documents.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Declares a random 128-bit identity, printed as hexadecimal digits.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(u128);

        impl $name {
            /// Wraps a bare number; the caller draws it at random.
            pub const fn new(value: u128) -> Self {
                Self(value)
            }

            /// The bare number, for encoding and printing.
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}

identity! {
    /// Names a cluster; drawn once, when the cluster is born.
    ClusterId
}
identity! {
    /// Names one formatted store. A wiped disk is formatted anew and gets another one, so it can
    /// never pass for the store that promised something.
    StoreId
}

/// Who is speaking: a member, the store it promised with, and how often that store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Peer {
    /// The member.
    pub node: NodeId,
    /// The store that its promises are written to.
    pub store: StoreId,
    /// The life of that store.
    pub boot: Boot,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.boot)
    }
}

/// An index together with the term of the entry there. By log matching (§5.3) it names one
/// entry and everything before it.
///
/// The order is the one of §5.4.1 (term first, then index): "at least as up-to-date" is `>=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Position {
    /// The term of the entry.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

impl Position {
    /// Before the first entry: `0@0`.
    pub const ZERO: Self = Self { term: Term::ZERO, index: Index::ZERO };

    /// The position of index `index` in term `term`.
    pub const fn new(index: Index, term: Term) -> Self {
        Self { term, index }
    }
}

/// `8@3` is index 8 of term 3.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a server promises in elections, and must not forget: Figure 2, "persistent state".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HardState {
    /// The latest term that this server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// This server has lost entries that it had acknowledged, up to here at most. Until its log
    /// reaches this far again it takes no part in elections: it might help somebody to power who
    /// lacks what it vouched for (contract D11, R1).
    pub floor: Option<Position>,
}

/// A moment on the caller's monotonic clock: nanoseconds from an arbitrary origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The last moment there is.
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// A moment, in nanoseconds from the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds from the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The time that has passed since `earlier`; zero if `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Seconds with millisecond digits: `1.250s`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}
