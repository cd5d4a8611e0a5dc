//! Names of messages, for logs and errors.
//!
//! They are those of the vhost-user document, without `VHOST_USER_` and `VHOST_USER_BACKEND_`.

use std::fmt;

use vhost::vhost_user::message::{BackendReq, FrontendReq};

/// The name of a request, or its number when the document has none for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Known(&'static str),
    Unknown(u32),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(name) => f.write_str(name),
            Self::Unknown(code) => write!(f, "unknown request {code}"),
        }
    }
}

/// Names what a frontend asks for ("Front-end message types").
pub fn frontend(code: impl Into<u32>) -> Name {
    find(FRONTEND, code.into())
}

/// Names what a backend asks for ("Back-end message types").
pub fn backend(code: impl Into<u32>) -> Name {
    find(BACKEND, code.into())
}

fn find(table: &[(u32, &'static str)], code: u32) -> Name {
    let known = table.iter().find(|(known, _)| *known == code);
    known.map_or(Name::Unknown(code), |(_, name)| Name::Known(name))
}

macro_rules! table {
    ($codes:ident: $($name:ident),* $(,)?) => {
        &[$(($codes::$name as u32, stringify!($name))),*]
    };
}

const FRONTEND: &[(u32, &str)] = table!(FrontendReq:
    GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD,
    SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL,
    SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE,
    SEND_RARP, NET_SET_MTU, SET_BACKEND_REQ_FD, IOTLB_MSG, SET_VRING_ENDIAN, GET_CONFIG,
    SET_CONFIG, CREATE_CRYPTO_SESSION, CLOSE_CRYPTO_SESSION, POSTCOPY_ADVISE, POSTCOPY_LISTEN,
    POSTCOPY_END, GET_INFLIGHT_FD, SET_INFLIGHT_FD, GPU_SET_SOCKET, RESET_DEVICE, VRING_KICK,
    GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG, SET_STATUS, GET_STATUS, GET_SHARED_OBJECT,
    SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE, GET_SHMEM_CONFIG,
);

const BACKEND: &[(u32, &str)] = table!(BackendReq:
    IOTLB_MSG, CONFIG_CHANGE_MSG, VRING_HOST_NOTIFIER_MSG, VRING_CALL, VRING_ERR,
    SHARED_OBJECT_ADD, SHARED_OBJECT_REMOVE, SHARED_OBJECT_LOOKUP, SHMEM_MAP, SHMEM_UNMAP,
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A new one in the crate shows here.
    #[test]
    fn all_requests_have_names_and_others_numbers() {
        for code in 0..100 {
            let known = FrontendReq::try_from(code)
                .ok()
                .map(|known| format!("{known:?}"));
            let name = known.unwrap_or_else(|| format!("unknown request {code}"));
            assert_eq!(frontend(code).to_string(), name);
            let known = BackendReq::try_from(code)
                .ok()
                .map(|known| format!("{known:?}"));
            let name = known.unwrap_or_else(|| format!("unknown request {code}"));
            assert_eq!(backend(code).to_string(), name);
        }
        assert_eq!(frontend(FrontendReq::GET_CONFIG).to_string(), "GET_CONFIG");
    }
}
