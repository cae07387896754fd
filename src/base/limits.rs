//! Every limit that is not a setting, named, with its reason.

/// Longest key of a client, in bytes. A stored row key may have at most 65,535 bytes (more panics inside the storage
/// engine and poisons the database); database, token, lengths and an element name take their part of it.
pub const MAX_KEY_BYTES: usize = 32 * 1024;

/// Longest encoded row key, in bytes, as the storage engine has it.
pub const MAX_ROW_KEY_BYTES: usize = 65_535;

/// Longest inline request, in bytes; Redis' PROTO_INLINE_MAX_SIZE.
pub const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Most arguments of a request once a client is known; as Redis had it before it allowed INT_MAX. Nothing is allocated
/// for arguments that have not arrived.
pub const MAX_ARGUMENTS: usize = 1024 * 1024;

/// Most arguments before a client has authenticated, as Redis (CVE-2021-32675).
pub const MAX_ARGUMENTS_UNAUTHENTICATED: usize = 10;

/// Longest argument before a client has authenticated, as Redis.
pub const MAX_BULK_UNAUTHENTICATED: usize = 16_384;

/// Longest frame between nodes, in bytes, checked before anything is allocated.
pub const MAX_FRAME_BYTES: usize = 768 * 1024 * 1024;

/// Longest string that a command may make out of others (APPEND, SETRANGE) and most memory that LCS may take, in bytes;
/// the default of Redis' `proto-max-bulk-len`. What a client sends is held to the setting of that name instead.
pub const MAX_STRING_BYTES: usize = 512 * 1024 * 1024;

/// Most commands that a node coordinates, or has forwarded, at once; what comes beyond is refused before anything is done.
/// Each client may have many in its pipeline, and each holds a few hundred bytes besides its arguments.
pub const MAX_COMMANDS_UNDER_WAY: usize = 65_536;

/// Most bytes of arguments of those commands together. A single command that is larger is let in alone.
pub const MAX_BYTES_UNDER_WAY: usize = 512 * 1024 * 1024;

/// Most changes that are told on behind their replies, and their bytes: what is beyond, syncs heal.
pub const MAX_TOLD_BEHIND: usize = 65_536;

/// See [`MAX_TOLD_BEHIND`].
pub const MAX_BYTES_BEHIND: usize = 128 * 1024 * 1024;

/// Most siblings a client's write may leave in one row. Merging never refuses: limits hold at the client's edge only.
pub const MAX_SIBLINGS: usize = 100;
