//! S1: a corpus of addresses and spellings that must never be connected to.

use super::*;

fn policy() -> EndpointPolicy {
    EndpointPolicy::default()
}

/// Hosts as an attacker would spell them, all of which mean something that is not public.
fn corpus() -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    // Loopback and "this host" in decimal, hexadecimal, octal, shortened and mixed forms.
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0177.1",
        "0x7f.1",
        "017700000001",
        "127.255.255.254",
        "0",
        "0.0.0.0",
        "0x0",
        "00.00.00.00",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:0:0]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%31%32%37.0.0.1",
        "127.0.0.1.",
        "127。0。0。1",
        "①②⑦.0.0.1",
    ] {
        hosts.push(host.into());
    }
    // Metadata services.
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "169.254.170.2",
        "169.254.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "[fe80::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ] {
        hosts.push(host.into());
    }
    // Every block of the registries: first, last and a middle address.
    for (first, middle, last) in [
        ("0.0.0.0", "0.1.2.3", "0.255.255.255"),
        ("10.0.0.0", "10.96.0.1", "10.255.255.255"),
        ("100.64.0.0", "100.100.1.1", "100.127.255.255"),
        ("127.0.0.0", "127.8.8.8", "127.255.255.255"),
        ("169.254.0.0", "169.254.1.1", "169.254.255.255"),
        ("172.16.0.0", "172.20.10.5", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.8", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.1", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.1", "192.88.99.255"),
        ("192.168.0.0", "192.168.1.1", "192.168.255.255"),
        ("198.18.0.0", "198.18.1.1", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.1", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.1", "203.0.113.255"),
        ("224.0.0.0", "224.0.0.251", "239.255.255.255"),
        ("240.0.0.0", "250.1.1.1", "255.255.255.255"),
    ] {
        for address in [first, middle, last] {
            let address: Ipv4Addr = address.parse().unwrap();
            let number = u32::from(address);
            let [a, b, c, d] = address.octets();
            hosts.push(address.to_string());
            hosts.push(number.to_string());
            hosts.push(format!("{number:#x}"));
            hosts.push(format!("{a:#o}.{b:#o}.{c:#o}.{d:#o}").replace("0o", "0"));
            hosts.push(format!("[::ffff:{address}]"));
            hosts.push(format!("[64:ff9b::{address}]"));
        }
    }
    for host in [
        "[fe80::1]",
        "[febf::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fdff::1]",
        "[ff02::1]",
        "[ff00::]",
        "[100::1]",
        "[2001::1]",
        "[2001:2::1]",
        "[2001:10::1]",
        "[2001:20::1]",
        "[2001:db8::1]",
        "[2002::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[4000::1]",
        "[::2]",
        "[64:ff9b:1::1]",
        "[::ffff:10.0.0.1]",
        "[::10.0.0.1]",
    ] {
        hosts.push(host.into());
    }
    hosts
}

#[test]
fn no_spelling_of_an_address_that_is_not_public_passes() {
    let corpus = corpus();
    assert!(corpus.len() > 200, "{} entries", corpus.len());
    for host in &corpus {
        for scheme in ["https", "http"] {
            // What the URL parser refuses never becomes a request.
            let Ok(url) = Url::parse(&format!("{scheme}://{host}/x")) else { continue };
            assert!(policy().judge_url(&url).is_err(), "{url} (from {host}) passed");
        }
    }
}

#[test]
fn schemes_users_and_plain_http_are_refused() {
    for url in [
        "http://acme.my.salesforce.com/",
        "ftp://acme.my.salesforce.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "https://user@acme.my.salesforce.com/",
        "https://acme.my.salesforce.com:secret@evil.example/",
        "https://acme.my.salesforce.com%2f@evil.example/",
        "http://8.8.8.8/",
    ] {
        assert!(policy().judge_url(&Url::parse(url).unwrap()).is_err(), "{url}");
    }
    for url in ["https://acme.my.salesforce.com/", "https://8.8.8.8/", "https://[2606:4700::1111]/"] {
        assert_eq!(policy().judge_url(&Url::parse(url).unwrap()), Ok(()), "{url}");
    }
}

#[test]
fn an_allowed_network_is_allowed_in_every_spelling_and_others_are_not() {
    let policy = EndpointPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] };
    for url in ["http://127.0.0.1:8080/", "https://127.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://2130706433/"] {
        assert_eq!(policy.judge_url(&Url::parse(url).unwrap()), Ok(()), "{url}");
    }
    for url in ["http://10.0.0.1/", "https://[::1]/", "http://8.8.8.8/"] {
        assert!(policy.judge_url(&Url::parse(url).unwrap()).is_err(), "{url}");
    }
}

async fn resolve(policy: EndpointPolicy, plain: bool, found: &[&str]) -> Result<usize, String> {
    let found: Vec<IpAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
    let lookup: Lookup = Arc::new(move |_| {
        let found = found.clone();
        Box::pin(async move { Ok(found) })
    });
    let resolver = GuardedResolver::new(policy, plain, lookup);
    resolver.resolve("vendor.example".parse().unwrap()).await.map(Iterator::count).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_name_is_judged_by_every_address_it_resolves_to() {
    assert_eq!(resolve(policy(), false, &["8.8.8.8", "2606:4700::1111"]).await, Ok(2));
    for found in [&["127.0.0.1"][..], &["8.8.8.8", "10.0.0.1"], &["::1"], &["::ffff:169.254.169.254"], &["8.8.8.8", "fe80::1"], &[]] {
        assert!(resolve(policy(), false, found).await.is_err(), "{found:?}");
    }
    assert!(resolve(policy(), true, &["8.8.8.8"]).await.unwrap_err().contains("plain http"));
    let allowed = EndpointPolicy { allow: vec!["10.0.0.0/8".parse().unwrap()] };
    assert_eq!(resolve(allowed.clone(), true, &["10.1.2.3"]).await, Ok(1));
    assert!(resolve(allowed, true, &["10.1.2.3", "8.8.8.8"]).await.is_err());
}
