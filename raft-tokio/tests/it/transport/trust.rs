//! Who is let in, and what those learn who are not.

use std::pin::Pin;
use std::time::SystemTime;

use raft_tokio::certs::Validity;
use raft_tokio::transport::{Caller, CertificateFault, ClientConnection, ClientEndpoint, DialError, Refusal};

use super::stranger::{Stranger, any_node, frame, hello};
use super::*;

/// Fails the test if it is ever asked.
struct Untouched;

impl Service for Untouched {
    fn call(&self, caller: &Caller, _: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
        panic!("a request of {} has come through", caller.name)
    }
}

fn guarded(authority: &Authority) -> Station {
    Station::serving(options(authority, peer(1, 1)), Untouched)
}

/// A party that trusts both authorities, but is vouched for by the second only.
fn trusting_both(first: &Authority, second: &Authority, issued: &Issued) -> Credentials {
    let both = format!("{}{}", first.cert_pem(), second.cert_pem());
    Credentials::from_pem(&both, &issued.cert_pem, &issued.key_pem).expect("because they were issued together")
}

async fn dial(credentials: &Credentials, station: &Station, to: Option<u64>) -> Result<ClientConnection, DialError> {
    let clients = ClientEndpoint::new(credentials, Limits::DEFAULT).expect("because a port is free");
    let outcome = in_time("the handshake", clients.connect(&station.address(), to.map(node))).await;
    outcome.map_err(|error| match error {
        TransportError::Dial { address, cause } => {
            assert_eq!(address, station.address());
            cause
        }
        other => panic!("{other}"),
    })
}

const WRONG_ROLE: u64 = 2;
const WRONG_CLUSTER: u64 = 3;
const WRONG_NODE: u64 = 4;
const MALFORMED: u64 = 10;

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (ours, theirs) = (authority(7), authority(8));
    let station = guarded(&theirs);
    let error = dial(&client_credentials(&ours), &station, None).await.expect_err("because it is not our cluster");
    let DialError::Distrusted { fault, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*fault, CertificateFault::OtherAuthority);
    assert!(error.to_string().contains("another authority"), "{error}");
}

#[tokio::test]
async fn an_authority_of_the_same_name_is_another_authority() {
    let (ours, theirs) = (authority(7), authority(7));
    let station = guarded(&theirs);
    let error = dial(&client_credentials(&ours), &station, None).await.expect_err("because the keys differ");
    assert!(matches!(error, DialError::Distrusted { fault: CertificateFault::OtherAuthority, .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_learns_why() {
    let (ours, theirs) = (authority(7), authority(8));
    let station = guarded(&ours);
    let issued = theirs.issue_client("ops").expect("because the name is plain");
    let address = station.endpoint.local_addr();
    let stranger = Stranger::connect(&ours, &issued, "raft-client/1", address, &any_node(&ours)).await;
    let error = in_time("the end of the connection", stranger.connection.closed()).await;
    assert!(matches!(&error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");

    // The same authority's name on both, so that the dial gets as far as the server's judgement.
    let twin = authority(7);
    let issued = twin.issue_client("ops").expect("because the name is plain");
    let error = dial(&trusting_both(&ours, &twin, &issued), &station, None).await.expect_err("because it is foreign");
    assert_eq!(error, DialError::NotTrusted { fault: CertificateFault::OtherAuthority });
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let authority = authority(7);
    let now = SystemTime::now();
    let past = Validity { not_before: now - Duration::from_secs(200), not_after: now - Duration::from_secs(100) };
    let station = guarded(&authority);
    let issued = authority.issue_client_for("ops", past).expect("because the name is plain");
    let error =
        dial(&credentials(&authority, &issued), &station, None).await.expect_err("because the client's has expired");
    assert_eq!(error, DialError::NotTrusted { fault: CertificateFault::NotValidNow });

    let issued = authority.issue_node_for(node(1), past).expect("because the system has randomness");
    let credentials = credentials(&authority, &issued);
    let expired = Station::serving(Options { credentials, ..options(&authority, peer(1, 1)) }, Untouched);
    let error =
        dial(&client_credentials(&authority), &expired, None).await.expect_err("because the server's has expired");
    assert!(matches!(error, DialError::Distrusted { fault: CertificateFault::NotValidNow, .. }), "{error:?}");
}

#[tokio::test]
async fn another_node_at_the_address_is_found_out() {
    let authority = authority(7);
    let station = guarded(&authority);
    let error = dial(&client_credentials(&authority), &station, Some(2)).await.expect_err("because it is n1");
    let DialError::Distrusted { fault, detail } = error else { panic!("{error:?}") };
    assert_eq!(fault, CertificateFault::OtherName);
    assert!(detail.contains("n2.") && detail.contains("n1."), "{detail}");
}

#[tokio::test]
async fn a_node_that_serves_no_clients_says_so() {
    let authority = authority(7);
    let station = Station::open(options(&authority, peer(1, 1)));
    let error = dial(&client_credentials(&authority), &station, None).await.expect_err("because there is no service");
    assert!(matches!(error, DialError::Refused { refusal: Refusal::NotServed, .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_at_the_address_is_said_to_be_nobody() {
    let authority = authority(7);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("because a port is free");
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::DEFAULT };
    let clients = ClientEndpoint::new(&client_credentials(&authority), limits).expect("because a port is free");
    let address = silent.local_addr().expect("because it is bound").to_string();
    let error = in_time("the error", clients.connect(&address, None)).await.expect_err("because nobody is there");
    let TransportError::Dial { cause: DialError::NoAnswer { .. }, .. } = error else { panic!("{error}") };
}

#[tokio::test]
async fn only_a_client_can_be_a_client_and_only_a_node_a_node() {
    let authority = authority(7);
    let error = ClientEndpoint::new(&node_credentials(&authority, 1), Limits::DEFAULT)
        .expect_err("because the certificate is a node's");
    assert!(matches!(error, TransportError::NotAClient { .. }), "{error}");
    for credentials in [client_credentials(&authority), node_credentials(&authority, 2)] {
        let Err(error) = Station::try_open(Options { credentials, ..options(&authority, peer(1, 1)) }, None) else {
            panic!("n1 runs with the certificate of somebody else")
        };
        assert!(matches!(error, TransportError::WrongIdentity { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_other_role_is_refused_before_anything_is_read() {
    let authority = authority(7);
    let mut station = guarded(&authority);
    let client = authority.issue_client("ops").expect("because the name is plain");
    let other = authority.issue_node(node(2)).expect("because the system has randomness");
    for (issued, alpn) in [(&client, "raft-peer/1"), (&other, "raft-client/1")] {
        let address = station.endpoint.local_addr();
        let stranger = Stranger::connect(&authority, issued, alpn, address, &any_node(&authority)).await;
        let (code, words) = stranger.turned_away().await;
        assert_eq!(code, WRONG_ROLE, "{words}");
    }
    assert_eq!(station.endpoint.counters().connections_refused, 2);
    assert!(station.inbox.try_recv().is_err(), "something was delivered");
}

#[tokio::test]
async fn a_hello_that_says_something_else_than_the_certificate_is_refused() {
    let authority = authority(7);
    let mut station = guarded(&authority);
    let address = station.endpoint.local_addr();
    let second = authority.issue_node(node(2)).expect("because the system has randomness");
    let cluster = authority.cluster();
    for (said, refused) in [
        (hello(cluster, Some(peer(3, 1))), WRONG_NODE),
        (hello(cluster, None), WRONG_NODE),
        (hello(ClusterId::new(8), Some(peer(2, 1))), WRONG_CLUSTER),
        (frame(3, &[10, 3]), MALFORMED),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), MALFORMED),
    ] {
        let stranger = Stranger::connect(&authority, &second, "raft-peer/1", address, &any_node(&authority)).await;
        stranger.say(&said).await;
        let (code, words) = stranger.turned_away().await;
        assert_eq!(code, refused, "{words}");
    }
    assert!(station.inbox.try_recv().is_err(), "something was delivered");
}

#[tokio::test]
async fn the_documented_bytes_are_enough_to_be_a_peer() {
    let authority = authority(7);
    let mut station = guarded(&authority);
    let second = authority.issue_node(node(2)).expect("because the system has randomness");
    let address = station.endpoint.local_addr();
    let stranger = Stranger::connect(&authority, &second, "raft-peer/1", address, &any_node(&authority)).await;
    let (mut send, _receive) =
        in_time("a stream", stranger.connection.open_bi()).await.expect("because one is allowed");
    send.write_all(&hello(authority.cluster(), Some(peer(2, 9)))).await.expect("because the window is open");
    let mut stream = in_time("a stream", stranger.connection.open_uni()).await.expect("because two are allowed");
    stream.write_all(&frame(3, &[10, 3])).await.expect("because the window is open");
    assert_eq!(station.received().await, (peer(2, 9), Rpc::TermOver { term: Term::new(3) }));

    // A frame that announces too much ends it, whatever else may follow.
    let mut huge = frame(3, &[10, 3]);
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    stream.write_all(&huge).await.expect("because the window is open");
    let (code, words) = stranger.turned_away().await;
    assert_eq!(code, MALFORMED, "{words}");
    assert!(words.contains("4294967295"), "{words}");
}

#[tokio::test]
async fn a_client_that_announces_a_huge_request_is_turned_away() {
    let authority = authority(7);
    let station = guarded(&authority);
    let client = authority.issue_client("ops").expect("because the name is plain");
    let address = station.endpoint.local_addr();
    let stranger = Stranger::connect(&authority, &client, "raft-client/1", address, &any_node(&authority)).await;
    let mut said = hello(authority.cluster(), None);
    let mut huge = frame(4, &[0; 16]);
    huge[4..8].copy_from_slice(&(64_u32 << 20).to_le_bytes());
    said.extend(huge);
    stranger.say(&said).await;
    let (code, words) = stranger.turned_away().await;
    assert_eq!(code, MALFORMED, "{words}");
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused_even_if_its_authority_is_trusted() {
    let (ours, theirs) = (authority(7), authority(8));
    let issued = ours.issue_node(node(1)).expect("because the system has randomness");
    let credentials = trusting_both(&theirs, &ours, &issued);
    let station = Station::serving(Options { credentials, ..options(&ours, peer(1, 1)) }, Untouched);
    let address = station.endpoint.local_addr();
    for (issued, alpn) in [
        (theirs.issue_client("ops").expect("because the name is plain"), "raft-client/1"),
        (theirs.issue_node(node(2)).expect("because the system has randomness"), "raft-peer/1"),
    ] {
        let stranger = Stranger::connect(&ours, &issued, alpn, address, &any_node(&ours)).await;
        let (code, words) = stranger.turned_away().await;
        assert_eq!(code, WRONG_CLUSTER, "{words}");
    }
}

#[tokio::test]
async fn peers_of_two_authorities_never_exchange_a_message() {
    let (ours, theirs) = (authority(7), authority(7));
    let mut first = Station::open(options(&ours, peer(1, 1)));
    let mut second = Station::open(options(&theirs, peer(2, 1)));
    first.connect(2, second.address());
    second.connect(1, first.address());
    first.endpoint.send(node(2), append(1, 10));
    assert_eq!(first.unreachable().await, node(2));
    let refused = async {
        while first.endpoint.counters().connections_refused == 0 || second.endpoint.counters().connections_refused == 0
        {
            tokio::task::yield_now().await;
        }
    };
    in_time("the refusals", refused).await;
    assert!(!matches!(second.inbox.try_recv(), Ok(Incoming::Received { .. })), "a message has come through");
}
