//! Networks outlive what is deleted: an address, and a project's virtual network, are free only when no VMM can be
//! on them any more.

use lifecycle::ledger::RoomAsk;
use lifecycle::vmm::Evidence;
use lifecycle::{
    BootId, InstanceEvent, InstanceId, InstanceSpec, LeaseEpoch, Ledger, Origin, ProjectEvent, ProjectId,
    Purpose, SagaId, Size, SledEvent, SledId, Span, VmmId,
};
use std::collections::BTreeSet;
use uuid::Uuid;

const SIZE: Size = Size { ncpus: 1, memory: 1 << 30 };

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn create_project(ledger: &mut Ledger, n: u128) -> u32 {
    let (project, name) = (ProjectId::new(id(n)), format!("q{n}"));
    let vni = ledger.grant_project(project, &name).expect("the name is free");
    let description = String::new();
    ledger.apply_project(project, &ProjectEvent::Created { id: project, name, description, vni });
    vni
}

#[test]
fn a_deleted_projects_network_is_not_given_away_while_a_vmm_may_be_on_it() {
    let mut ledger = Ledger::default();
    let sled = SledId::new(id(1));
    let registered = SledEvent::Registered {
        id: sled,
        name: "sim-0".to_owned(),
        threads: 8,
        memory: 8 << 30,
        cpu_family: "sim".to_owned(),
        address: String::new(),
    };
    ledger.apply_sled(sled, &registered);
    ledger.apply_sled(sled, &SledEvent::Booted { boot: BootId::new(id(2)), epoch: LeaseEpoch::new(1) });

    let vni = create_project(&mut ledger, 10);
    let (project, instance, vmm) = (ProjectId::new(id(10)), InstanceId::new(id(20)), VmmId::new(id(30)));
    let address = ledger.grant_instance(instance, project, "x1").expect("there is room");
    let spec = InstanceSpec {
        project,
        name: "x1".to_owned(),
        description: String::new(),
        hostname: "x1".to_owned(),
        size: SIZE,
        auto_restart: None,
        cpu_platform: None,
        boot_disk: None,
        jumbo_frames: false,
    };
    let intent = lifecycle::Intent::Running;
    let created = InstanceEvent::Created { id: instance, spec: Box::new(spec), address, intent };
    ledger.apply_instance(instance, &created);
    let purpose = Purpose::Start { cpu_family: None };
    let none = BTreeSet::new();
    let (avoid, shut) = (&none, &none);
    let ask = RoomAsk { instance, vmm, size: SIZE, purpose: &purpose, to: None, dice: 0, avoid, shut };
    let shutting = BTreeSet::from([sled]);
    assert_eq!(
        ledger.grant_room(&RoomAsk { shut: &shutting, ..ask }),
        Err(lifecycle::rejected::Shortage::NoSled)
    );
    assert_eq!(ledger.grant_room(&ask), Ok(sled));
    let (saga, origin, deadline) = (SagaId::new(id(40)), Origin::User, Span::from_secs(1));
    ledger.apply_instance(
        instance,
        &InstanceEvent::StartBegan { saga, origin, vmm, sled, size: SIZE, deadline },
    );
    ledger.apply_instance(instance, &InstanceEvent::Deleted);
    ledger.grant_project_delete(project).expect("it has no instances");
    ledger.apply_project(project, &ProjectEvent::Deleted);

    assert_ne!(create_project(&mut ledger, 11), vni, "a VMM may still be on it");
    ledger.apply_instance(instance, &InstanceEvent::VmmGone { vmm, evidence: Evidence::Unregistered });
    ledger.apply_instance(instance, &InstanceEvent::VmmReaped { vmm });
    ledger.apply_project(ProjectId::new(id(11)), &ProjectEvent::Deleted);
    assert_eq!(create_project(&mut ledger, 12), vni, "nothing is left of it");
}
