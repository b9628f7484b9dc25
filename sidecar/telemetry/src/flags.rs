//! Envoy's response flags: why a request ended as it did, in two or more letters.

use std::fmt;

macro_rules! flags {
    ($($name:ident $short:literal $long:literal),+ $(,)?) => {
        /// One reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Flag {
            $(
                #[doc = $long]
                $name,
            )+
        }

        impl Flag {
            /// Every flag, in the order in which they are written.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// As access logs and metrics write it.
            pub fn short(self) -> &'static str {
                match self {
                    $(Self::$name => $short,)+
                }
            }

            /// As `%RESPONSE_FLAGS_LONG%` writes it.
            pub fn long(self) -> &'static str {
                match self {
                    $(Self::$name => $long,)+
                }
            }
        }
    };
}

flags! {
    FailedLocalHealthCheck "LH" "FailedLocalHealthCheck",
    NoHealthyUpstream "UH" "NoHealthyUpstream",
    UpstreamRequestTimeout "UT" "UpstreamRequestTimeout",
    LocalReset "LR" "LocalReset",
    UpstreamRemoteReset "UR" "UpstreamRemoteReset",
    UpstreamConnectionFailure "UF" "UpstreamConnectionFailure",
    UpstreamConnectionTermination "UC" "UpstreamConnectionTermination",
    UpstreamOverflow "UO" "UpstreamOverflow",
    NoRouteFound "NR" "NoRouteFound",
    DelayInjected "DI" "DelayInjected",
    FaultInjected "FI" "FaultInjected",
    RateLimited "RL" "RateLimited",
    UnauthorizedExternalService "UAEX" "UnauthorizedExternalService",
    RateLimitServiceError "RLSE" "RateLimitServiceError",
    DownstreamConnectionTermination "DC" "DownstreamConnectionTermination",
    UpstreamRetryLimitExceeded "URX" "UpstreamRetryLimitExceeded",
    StreamIdleTimeout "SI" "StreamIdleTimeout",
    InvalidEnvoyRequestHeaders "IH" "InvalidEnvoyRequestHeaders",
    DownstreamProtocolError "DPE" "DownstreamProtocolError",
    UpstreamMaxStreamDurationReached "UMSDR" "UpstreamMaxStreamDurationReached",
    NoFilterConfigFound "NFCF" "NoFilterConfigFound",
    DurationTimeout "DT" "DurationTimeout",
    UpstreamProtocolError "UPE" "UpstreamProtocolError",
    NoClusterFound "NC" "NoClusterFound",
    OverloadManager "OM" "OverloadManagerTerminated",
    DnsResolutionFailed "DF" "DnsResolutionFailed",
    DropOverload "DO" "DropOverload",
    DownstreamRemoteReset "DR" "DownstreamRemoteReset",
    UnconditionalDropOverload "UDO" "UnconditionalDropOverload",
}

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Adds a flag.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    /// Takes a flag out.
    pub fn remove(&mut self, flag: Flag) {
        self.0 &= !(1 << flag as u8);
    }

    /// Whether the flag is in the set.
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags in the set.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
    }

    /// The set as Envoy numbers it: the first flag is bit 0.
    pub fn bits(self) -> u64 {
        self.0.into()
    }

    /// The long names, separated by commas.
    pub fn long(self) -> String {
        if self.is_empty() {
            return "-".to_owned();
        }
        self.iter().map(Flag::long).collect::<Vec<_>>().join(",")
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        Self(1 << flag as u8)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_in_order() {
        let mut flags = Flags::from(Flag::UpstreamRetryLimitExceeded);
        flags.insert(Flag::UpstreamConnectionFailure);
        assert_eq!(flags.to_string(), "UF,URX");
        assert_eq!(flags.long(), "UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
        flags.remove(Flag::UpstreamConnectionFailure);
        flags.remove(Flag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "-");
        assert_eq!(Flag::ALL.len(), 29);
    }
}
