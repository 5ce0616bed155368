//! What a wallet said about itself.

use super::version::ProtocolVersion;

/// Characters of a name that are kept.
const NAME_CHARS: usize = 100;

/// The first Electrum that does not show a server's words as its own.
const SAFE_ELECTRUM: (u32, u32) = (3, 3);

/// Who is at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// `None` until it has said.
    negotiated: Option<ProtocolVersion>,
    name: String,
}

impl Client {
    pub(super) fn introduce(&mut self, name: &str, version: ProtocolVersion) {
        self.name = name.chars().take(NAME_CHARS).collect();
        self.negotiated = Some(version);
    }

    pub(super) fn negotiated(&self) -> Option<ProtocolVersion> {
        self.negotiated
    }

    /// The version that is spoken.
    pub(super) fn version(&self) -> ProtocolVersion {
        self.negotiated.unwrap_or(ProtocolVersion::UNSAID)
    }

    /// The name it gave, shortened; empty if none.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it calls itself an Electrum below 3.3. Those sent nothing but their number.
    pub(super) fn is_phishable(&self) -> bool {
        let name = self.name.trim();
        let number = match name.get(..8) {
            Some(start) if start.eq_ignore_ascii_case("electrum") => {
                name[8..].trim_start_matches(['/', ' ', '-', 'v'])
            }
            _ => name,
        };
        let mut parts = number.split('.').map(|part| {
            let digits = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse::<u32>().ok()
        });
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor) < SAFE_ELECTRUM,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_electrums_are_known_by_their_number() {
        for (name, phishable) in [
            ("2.9.3", true),
            ("3.2.4", true),
            ("3.3.0", false),
            ("3.3", false),
            ("4.5.8", false),
            ("electrum/3.2.3", true),
            ("Electrum 3.0", true),
            ("electrum/4.8.1", false),
            ("electrum/10.0", false),
            ("ElectrumX/1.2", false),
            ("Sparrow", false),
            ("bluewallet", false),
            ("electrum-client-js", false),
            ("", false),
            ("3", false),
            ("é.2", false),
        ] {
            let mut client = Client::default();
            client.introduce(name, ProtocolVersion::V1_4);
            assert_eq!(client.is_phishable(), phishable, "{name}");
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let mut client = Client::default();
        client.introduce(&"é".repeat(1_000), ProtocolVersion::V1_4);
        assert_eq!(client.name().chars().count(), NAME_CHARS);
    }
}
