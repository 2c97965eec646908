//! Why worker processes were replaced, and how often.

/// Why a process was given up, so that the next batch gets another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It ended while it owed results.
    Crashed,
    /// It gave no result in time.
    Timeout,
    /// It broke the protocol.
    Protocol,
    /// It had run `max_tasks` tasks.
    MaxTasks,
    /// It had grown to `max_memory`.
    MaxMemory,
    /// It was `max_age` old.
    MaxAge,
    /// It ended by itself while it owed nothing.
    Exited,
}

impl Restart {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Crashed, Self::Timeout, Self::Protocol, Self::MaxTasks, Self::MaxMemory, Self::MaxAge, Self::Exited];

    /// The name in `status`; those of limits are the keys of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::MaxTasks => "max_tasks",
            Self::MaxMemory => "max_memory",
            Self::MaxAge => "max_age",
            Self::Exited => "exited",
        }
    }
}
