//! The bytes on the wire: one golden example per message, and what is refused.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sled_protocol::{
    Generation, Invalid, Inventory, LeaseEpoch, NatEntry, Producer, RegisterSled, RegisterVmm, RenewLease,
    SerialData, SetState, SledLease, SledVmmState, UpdatedRuntime, V2pMapping, limits,
};

const A: &str = "00000000-0000-0000-0000-00000000000a";
const B: &str = "00000000-0000-0000-0000-00000000000b";
const C: &str = "00000000-0000-0000-0000-00000000000c";
const NIL: &str = "00000000-0000-0000-0000-000000000000";
const TIME: &str = "2023-11-14T22:13:20Z";

fn register_vmm() -> Value {
    json!({
        "instance_id": A,
        "migration_id": null,
        "vmm_runtime": {"state": "starting", "gen": 1, "time_updated": TIME},
        "resources": {"ncpus": 4, "memory": 1_073_741_824_u64},
        "network": {"virtual_ip": "172.30.0.5", "mac": "A8:40:25:FF:00:01", "vni": 100},
        "metadata": {"project_id": B},
        "lease_epoch": 3
    })
}

fn picture(state: &str) -> Value {
    json!({
        "vmm_state": {"state": state, "gen": 5, "time_updated": TIME},
        "migration_in": {"migration_id": A, "state": "completed", "gen": 3, "time_updated": TIME},
        "migration_out": null
    })
}

fn set_state(state: Value) -> Value {
    json!({"op_id": A, "lease_epoch": 3, "state": state})
}

fn inventory() -> Value {
    let mut listed = picture("running");
    listed["propolis_id"] = json!(A);
    listed["instance_id"] = json!(B);
    json!({
        "sled_id": A,
        "boot_id": B,
        "lease_epoch": 3,
        "resources": {"threads": 64, "memory": 1_073_741_824_u64},
        "vmms": [listed]
    })
}

fn register_sled() -> Value {
    json!({
        "sled_id": A,
        "name": "sled1",
        "boot_id": B,
        "resources": {"threads": 64, "memory": 1_073_741_824_u64},
        "cpu_family": "milan",
        "api_addr": "[fd00::1]:7000"
    })
}

fn nat_entry() -> Value {
    json!({
        "external_ip": "203.0.113.7",
        "first_port": 0,
        "last_port": 16383,
        "physical_host_ip": "fd00::1",
        "vni": 100,
        "mac": "A8:40:25:FF:00:01",
        "generation": 12
    })
}

/// Reads the JSON and writes it back unchanged.
fn check<T: Serialize + DeserializeOwned>(golden: &Value) -> T {
    let read: T = serde_json::from_value(golden.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&read).unwrap(), golden);
    read
}

#[test]
fn every_message_is_read_and_written_as_the_protocol_page_has_it() {
    check::<RegisterVmm>(&register_vmm()).validate().unwrap();
    for state in
        ["starting", "running", "stopping", "stopped", "rebooting", "migrating", "failed", "destroyed"]
    {
        check::<SledVmmState>(&picture(state)).validate().unwrap();
    }
    for state in [
        json!({"type": "running"}),
        json!({"type": "stopped"}),
        json!({"type": "reboot"}),
        json!({"type": "migration_target", "value": {"src_propolis_id": B, "src_addr": "[fd00::1]:7000"}}),
        json!({"type": "migration_cancel"}),
    ] {
        check::<SetState>(&set_state(state)).validate().unwrap();
    }
    check::<UpdatedRuntime>(&json!({"updated_runtime": null}));
    check::<UpdatedRuntime>(&json!({"updated_runtime": picture("stopping")}));
    check::<Inventory>(&inventory()).validate().unwrap();
    check::<RegisterSled>(&register_sled()).validate().unwrap();
    check::<SledLease>(&json!({"lease_epoch": 4})).validate().unwrap();
    check::<SledLease>(&json!({"lease_epoch": 4, "lease_seconds": 30})).validate().unwrap();
    check::<RenewLease>(&json!({"boot_id": B, "lease_epoch": 4})).validate().unwrap();
    let mapping = json!({
        "virtual_ip": "172.30.0.5", "vni": 100, "mac": "A8:40:25:FF:00:01",
        "physical_host_ip": "fd00::1", "generation": 12
    });
    check::<V2pMapping>(&mapping).validate().unwrap();
    check::<NatEntry>(&nat_entry()).validate().unwrap();
    let producer = json!({
        "propolis_id": A, "instance_id": B, "physical_host_ip": "fd00::1", "generation": 12
    });
    check::<Producer>(&producer).validate().unwrap();
    check::<SerialData>(&json!({"data": [104, 105], "last_byte_offset": 7})).validate().unwrap();
}

#[test]
fn a_register_without_a_migration_may_leave_it_out() {
    let mut golden = register_vmm();
    golden.as_object_mut().unwrap().remove("migration_id");
    assert_eq!(serde_json::from_value::<RegisterVmm>(golden).unwrap(), check(&register_vmm()));
}

/// The message with one field replaced, by JSON pointer.
fn spoiled(mut golden: Value, pointer: &str, value: Value) -> Value {
    *golden.pointer_mut(pointer).unwrap() = value;
    golden
}

#[test]
fn what_cannot_be_read_is_refused() {
    let too_many = u64::MAX;
    for (pointer, value) in [
        ("/instance_id", json!("nobody")),
        ("/vmm_runtime/state", json!("Running")),
        ("/vmm_runtime/gen", json!(-1)),
        ("/vmm_runtime/time_updated", json!("soon")),
        ("/resources/ncpus", json!(too_many)),
        ("/network/vni", json!(1 << 24)),
        ("/network/mac", json!("A8:40:25:FF:00")),
        ("/network/virtual_ip", json!("172.30.0.256")),
    ] {
        let message = spoiled(register_vmm(), pointer, value);
        assert!(serde_json::from_value::<RegisterVmm>(message).is_err(), "{pointer}");
    }
    for address in ["", "sim-0", "a\nb", "https://a:1", "http://a:1/b", "0.0.0.0:1", "a:0"] {
        let message = spoiled(register_sled(), "/api_addr", json!(address));
        let error = serde_json::from_value::<RegisterSled>(message).unwrap_err().to_string();
        assert!(error.contains("`api_addr` is malformed; it must be host:port"), "{address}: {error}");
    }
    for state in
        [json!({"type": "paused"}), json!({"type": "migration_target"}), json!("running"), json!(null)]
    {
        assert!(serde_json::from_value::<SetState>(set_state(state)).is_err());
    }
}

#[test]
fn what_can_be_read_and_makes_no_sense_is_refused_by_name() {
    let long = "x".repeat(limits::TEXT_BYTES_MAX + 1);
    let many = limits::COUNTER_MAX + 1;
    let refused: [(&str, Result<(), Invalid>); 15] = [
        ("instance_id", read::<RegisterVmm>(spoiled(register_vmm(), "/instance_id", json!(NIL))).validate()),
        ("gen", read::<RegisterVmm>(spoiled(register_vmm(), "/vmm_runtime/gen", json!(many))).validate()),
        ("state", read::<RegisterVmm>(spoiled(register_vmm(), "/migration_id", json!(C))).validate()),
        ("ncpus", read::<RegisterVmm>(spoiled(register_vmm(), "/resources/ncpus", json!(0))).validate()),
        ("memory", read::<RegisterVmm>(spoiled(register_vmm(), "/resources/memory", json!(many))).validate()),
        ("gen", read::<SledVmmState>(spoiled(picture("running"), "/vmm_state/gen", json!(0))).validate()),
        (
            "ended",
            read::<SledVmmState>(spoiled(picture("failed"), "/migration_in/state", json!("pending")))
                .validate(),
        ),
        ("both", {
            let arrival = picture("running")["migration_in"].clone();
            read::<SledVmmState>(spoiled(picture("running"), "/migration_out", arrival)).validate()
        }),
        ("name", read::<RegisterSled>(spoiled(register_sled(), "/name", json!(long))).validate()),
        ("name", read::<RegisterSled>(spoiled(register_sled(), "/name", json!(""))).validate()),
        (
            "threads",
            read::<RegisterSled>(spoiled(register_sled(), "/resources/threads", json!(0))).validate(),
        ),
        ("vmms", {
            let listed = inventory()["vmms"][0].clone();
            read::<Inventory>(spoiled(inventory(), "/vmms", json!([listed, listed]))).validate()
        }),
        ("lease_seconds", read::<SledLease>(json!({"lease_epoch": 1, "lease_seconds": 0})).validate()),
        ("last_port", read::<NatEntry>(spoiled(nat_entry(), "/first_port", json!(20000))).validate()),
        ("last_byte_offset", read::<SerialData>(json!({"data": [1, 2], "last_byte_offset": 1})).validate()),
    ];
    for (named, result) in refused {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(named), "`{named}` is not named in: {text}");
    }
    let full = spoiled(inventory(), "/vmms", Value::Array(vec![inventory()["vmms"][0].clone(); 5000]));
    assert!(read::<Inventory>(full).validate().is_err());
}

fn read<T: DeserializeOwned>(message: Value) -> T {
    serde_json::from_value(message).unwrap()
}

#[test]
fn counters_stop_where_no_honest_one_arrives() {
    assert_eq!(Generation::new(limits::COUNTER_MAX).next().get(), limits::COUNTER_MAX);
    assert_eq!(LeaseEpoch::FIRST.next().get(), 2);
}
