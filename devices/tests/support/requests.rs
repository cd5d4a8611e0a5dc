//! What a backend asks of the frontend, on a socket of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost::vhost_user::message::{BackendReq, VhostUserMMap, VhostUserMMapFlags};
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

pub const PAGE: u64 = 4096;
const NEED_REPLY: u32 = 1 << 3;

/// A request that wants an answer.
#[derive(Clone, Debug)]
pub struct Request {
    code: BackendReq,
    payload: Vec<u8>,
    file: Option<Arc<File>>,
}

impl Request {
    pub fn config_changed() -> Self {
        Self {
            code: BackendReq::CONFIG_CHANGE_MSG,
            payload: Vec::new(),
            file: None,
        }
    }

    /// Page 0 of `file` at a page of region 0.
    pub fn map(page: u64, file: &Arc<File>) -> Self {
        Self {
            code: BackendReq::SHMEM_MAP,
            payload: range(page, VhostUserMMapFlags::WRITABLE),
            file: Some(file.clone()),
        }
    }

    pub fn unmap(page: u64) -> Self {
        Self {
            code: BackendReq::SHMEM_UNMAP,
            payload: range(page, VhostUserMMapFlags::empty()),
            file: None,
        }
    }

    /// Sends it and waits for the answer: 0 when it is done.
    pub fn ask(&self, mut stream: &UnixStream) -> io::Result<u64> {
        let header = [self.code.into(), 1 | NEED_REPLY, self.payload.len() as u32];
        let bytes = [&header.map(u32::to_ne_bytes).concat(), &self.payload[..]].concat();
        let fd = self.file.as_ref().map(|file| file.as_raw_fd());
        let sent = stream.send_with_fds(&[&bytes[..]], fd.as_slice())?;
        assert_eq!(sent, bytes.len());
        let (mut header, mut number) = ([0; 12], [0; 8]);
        stream.read_exact(&mut header)?;
        stream.read_exact(&mut number)?;
        Ok(u64::from_ne_bytes(number))
    }
}

fn range(page: u64, flags: VhostUserMMapFlags) -> Vec<u8> {
    let range = VhostUserMMap {
        shm_offset: page * PAGE,
        len: PAGE,
        flags: flags.bits(),
        ..Default::default()
    };
    range.as_slice().to_vec()
}
