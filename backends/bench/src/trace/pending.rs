//! Requests that wait for their replies.

use std::collections::VecDeque;

use vhost::vhost_user::message::FrontendReq as F;
use vhost_user_wire::Header;

use super::record::Side;

/// More than any peer has in flight. A peer that answers nothing does not make the list longer.
const MOST: usize = 256;

/// The requests of one channel whose replies have yet to come. Replies come in their order.
#[derive(Debug, Default)]
pub struct Pending {
    /// Code, and time in nanoseconds.
    requests: VecDeque<(u32, u64)>,
}

impl Pending {
    /// Notes a request on `channel`, if it is to be answered.
    pub fn request(&mut self, channel: Side, header: &Header, time: u64) {
        if !expects_reply(channel, header) {
            return;
        }
        if self.requests.len() == MOST {
            self.requests.pop_front();
        }
        self.requests.push_back((header.request, time));
    }

    /// Nanoseconds from the request to this reply, if the request was seen. Requests before it
    /// are not answered any more.
    pub fn reply(&mut self, header: &Header, time: u64) -> Option<u64> {
        let is_it = |(code, _): &(u32, u64)| *code == header.request;
        let place = self.requests.iter().position(is_it)?;
        let (_, asked) = self.requests.drain(..=place).next_back()?;
        Some(time.saturating_sub(asked))
    }
}

/// Whether a request on `channel` is answered: always, or because its sender wants an
/// acknowledgement.
pub fn expects_reply(channel: Side, header: &Header) -> bool {
    let is_answered = channel == Side::Frontend
        && F::try_from(header.request).is_ok_and(|code| ANSWERED.contains(&code));
    is_answered || header.needs_reply()
}

/// Requests of a frontend with a reply of their own (vhost-user document, "Communication").
const ANSWERED: &[F] = &[
    F::GET_FEATURES,
    F::GET_PROTOCOL_FEATURES,
    F::GET_VRING_BASE,
    F::SET_LOG_BASE,
    F::GET_QUEUE_NUM,
    F::GET_CONFIG,
    F::CREATE_CRYPTO_SESSION,
    F::POSTCOPY_ADVISE,
    F::POSTCOPY_END,
    F::GET_INFLIGHT_FD,
    F::GET_MAX_MEM_SLOTS,
    F::GET_STATUS,
    F::GET_SHARED_OBJECT,
    F::SET_DEVICE_STATE_FD,
    F::CHECK_DEVICE_STATE,
    F::GET_SHMEM_CONFIG,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn header(code: F) -> Header {
        Header::request(code, 0)
    }

    #[test]
    fn replies_find_their_requests_and_skip_unanswered_ones() {
        let mut pending = Pending::default();
        pending.request(Side::Frontend, &header(F::SET_OWNER), 1);
        pending.request(Side::Frontend, &header(F::SET_VRING_NUM).with_ack(), 2);
        pending.request(Side::Frontend, &header(F::GET_FEATURES), 5);
        pending.request(Side::Frontend, &header(F::GET_FEATURES), 7);
        assert_eq!(pending.reply(&header(F::GET_FEATURES), 9), Some(4));
        assert_eq!(pending.reply(&header(F::SET_VRING_NUM), 9), None);
        assert_eq!(pending.reply(&header(F::GET_FEATURES), 10), Some(3));
        assert_eq!(pending.reply(&header(F::GET_FEATURES), 10), None);
    }

    #[test]
    fn a_peer_that_answers_nothing_costs_a_bounded_list() {
        let mut pending = Pending::default();
        (0..10_000).for_each(|time| pending.request(Side::Frontend, &header(F::GET_STATUS), time));
        assert_eq!(pending.requests.len(), MOST);
    }
}
