//! Endpoints as they are declared, checked before anybody can call there.

use std::{collections::BTreeSet, time::Duration};

use fsm_core::Fault;
use nix::unistd::{Group, User};
use plugin_sdk::{Caller, Endpoint, Peer};

use crate::{Error, ErrorKind};

/// The longest first message that the host reads.
const FIRST_BYTES_MAX: u32 = 1 << 20;
/// The longest name.
const NAME_BYTES_MAX: usize = 64;

/// An endpoint that can be opened.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) workload: String,
    pub(super) name: String,
    callers: BTreeSet<Allowed>,
    pub(super) first_bytes_max: u32,
    pub(super) first_within: Duration,
    pub(super) connections_max: u32,
}

/// Somebody who may call, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Allowed {
    Uid(u32),
    Gid(u32),
}

impl Checked {
    /// The endpoints of `workload`, with the numbers of those who may call.
    pub(super) fn all(workload: &str, declared: Vec<Endpoint>) -> Result<Vec<Self>, Error> {
        let broken = |what: String| {
            let message = format!("workload `{workload}` broke its contract: {what}");
            Error::new(ErrorKind::Plugin, Fault::bug("plugin.contract", message))
        };
        // Its name is a directory's, here.
        if !is_name(workload) {
            return Err(broken("a workload of that name has no place for sockets".to_owned()));
        }
        let mut names = BTreeSet::new();
        let mut checked = Vec::new();
        for endpoint in declared {
            let Endpoint { name, first_bytes_max, .. } = &endpoint;
            if !is_name(name) {
                return Err(broken(format!("{name:?} names no endpoint")));
            }
            if !names.insert(name.clone()) {
                return Err(broken(format!("two endpoints are named `{name}`")));
            }
            if *first_bytes_max > FIRST_BYTES_MAX {
                let what =
                    format!("endpoint `{name}` wants first messages of {first_bytes_max} bytes");
                return Err(broken(format!("{what}, and {FIRST_BYTES_MAX} is the most")));
            }
            checked.push(Self::one(workload, endpoint)?);
        }
        Ok(checked)
    }

    fn one(workload: &str, endpoint: Endpoint) -> Result<Self, Error> {
        let callers = endpoint.callers.iter().map(|caller| {
            number(caller).map_err(|fault| {
                let who = format!("endpoint `{}` of workload `{workload}`", endpoint.name);
                tracing::warn!(%who, %fault, "a caller cannot be looked up");
                Error::new(ErrorKind::Ingress, fault)
            })
        });
        let callers = callers.collect::<Result<BTreeSet<_>, _>>()?;
        if callers.is_empty() {
            tracing::warn!(workload, endpoint = endpoint.name, "nobody may call there");
        }
        Ok(Checked {
            workload: workload.to_owned(),
            name: endpoint.name,
            callers,
            first_bytes_max: endpoint.first_bytes_max,
            first_within: endpoint.first_within,
            connections_max: endpoint.connections_max,
        })
    }

    /// Whether `peer` may call.
    pub(super) fn admits(&self, peer: &Peer) -> bool {
        self.callers.contains(&Allowed::Uid(peer.uid))
            || self.callers.contains(&Allowed::Gid(peer.gid))
    }

    /// Whether anybody but the agent's own user may call.
    pub(super) fn is_for_others(&self) -> bool {
        let own = Allowed::Uid(nix::unistd::geteuid().as_raw());
        self.callers.iter().any(|caller| *caller != own)
    }
}

/// 1 to 64 ASCII letters, digits and `-_.`, the first not a `.`.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn number(caller: &Caller) -> Result<Allowed, Fault> {
    let unknown = |what: &str, name: &str, error: Option<nix::Error>| {
        let message = format!("there is no {what} `{name}`, who is to call");
        let fault = Fault::user("ingress.caller", message)
            .advise("correct the plugin's configuration, or make the account");
        match error {
            Some(error) => fault.caused_by(&error),
            None => fault,
        }
    };
    match caller {
        Caller::Uid(uid) => Ok(Allowed::Uid(*uid)),
        Caller::Gid(gid) => Ok(Allowed::Gid(*gid)),
        Caller::User(name) => match User::from_name(name) {
            Ok(Some(user)) => Ok(Allowed::Uid(user.uid.as_raw())),
            Ok(None) => Err(unknown("user", name, None)),
            Err(error) => Err(unknown("user", name, Some(error))),
        },
        Caller::Group(name) => match Group::from_name(name) {
            Ok(Some(group)) => Ok(Allowed::Gid(group.gid.as_raw())),
            Ok(None) => Err(unknown("group", name, None)),
            Err(error) => Err(unknown("group", name, Some(error))),
        },
        _ => {
            let message = "the plugin names a caller in a way that this agent does not know";
            let fault = Fault::permanent("ingress.caller", message);
            Err(fault.advise("upgrade this agent, or use an older plugin"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    fn one(endpoint: Endpoint) -> Result<Checked, Error> {
        Checked::all("pipes", vec![endpoint]).map(|mut all| all.remove(0))
    }

    #[test]
    fn names_are_those_of_files_in_one_directory() {
        for name in ["H4C", "a", "9-_.x", &"n".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"n".repeat(65)] {
            assert!(!is_name(name), "{name}");
            assert_eq!(one(Endpoint::new(name)).unwrap_err().code(), "plugin.contract");
        }
        assert_eq!(Checked::all("../x", Vec::new()).unwrap_err().code(), "plugin.contract");
        let twice = vec![Endpoint::new("a"), Endpoint::new("a")];
        assert_eq!(Checked::all("pipes", twice).unwrap_err().code(), "plugin.contract");
    }

    #[test]
    fn who_may_call_is_known_by_number() {
        let endpoint = one(Endpoint::new("a").caller(Caller::User("root".to_owned()))).unwrap();
        assert!(endpoint.admits(&Peer::new(0, 5, 1)) && !endpoint.admits(&Peer::new(5, 0, 1)));
        let endpoint = one(Endpoint::new("a").caller(Caller::Group("root".to_owned()))).unwrap();
        assert!(endpoint.admits(&Peer::new(5, 0, 1)) && !endpoint.admits(&Peer::new(0, 5, 1)));
        let endpoint = Endpoint::new("a").caller(Caller::Uid(3)).caller(Caller::Gid(4));
        let endpoint = one(endpoint).unwrap();
        for (uid, gid, admitted) in [(3, 9, true), (9, 4, true), (4, 3, false), (0, 0, false)] {
            assert_eq!(endpoint.admits(&Peer::new(uid, gid, 1)), admitted, "{uid} {gid}");
        }
        assert!(!one(Endpoint::new("a")).unwrap().admits(&Peer::new(0, 0, 1)));
        let nobody = Endpoint::new("a").caller(Caller::User("no-such-user".to_owned()));
        let error = one(nobody).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Ingress, "ingress.caller"));
    }

    #[test]
    fn a_first_message_is_bounded_by_the_host_too() {
        let within = Duration::from_secs(1);
        assert!(one(Endpoint::new("a").first_message(1 << 20, within)).is_ok());
        let error = one(Endpoint::new("a").first_message((1 << 20) + 1, within)).unwrap_err();
        assert_eq!(error.code(), "plugin.contract");
    }
}
