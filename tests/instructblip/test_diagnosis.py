"""doctor's look at an Ascend NPU, on made-up machines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from instructblip import ascend, cli, diagnosis, doctor
from instructblip.diagnosis import Finding, Machine, examine_ascend

SMI = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.2        41                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3439 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 95.1        43                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3412 / 65536         |
+===========================+===============+====================================================+
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A server with two NPUs and all that they need."""
    for name in ("davinci0", "davinci1", *diagnosis.HELPERS):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    for what, version in (("driver", "25.2.0"), ("firmware", "7.7.0.6.236")):
        folder = tmp_path / "usr/local/Ascend" / what
        folder.mkdir(parents=True)
        (folder / "version.info").write_text(f"Version={version}\npackage_version=x\n")
    cann, atb = tmp_path / "cann", tmp_path / "atb/lib"
    for folder in (cann / "aarch64-linux", cann / "lib64", cann / "opp", atb):
        folder.mkdir(parents=True)
    (cann / "aarch64-linux/ascend_toolkit_install.info").write_text("version=9.0.0\n")
    for file in (cann / "lib64/libascendcl.so", cann / "lib64/libhccl.so", atb / "libatb.so"):
        file.touch()
    return Machine(
        root=tmp_path,
        variables={
            "ASCEND_HOME_PATH": str(cann), "ASCEND_OPP_PATH": str(cann / "opp"),
            "LD_LIBRARY_PATH": f"{cann}/lib64:{atb}", **ascend.RECOMMENDED,
        },
        smi=SMI,
        packages={"torch": "2.10.0+cpu", "torch-npu": "2.10.0"},
    )  # fmt: skip


def with_variables(machine: Machine, **more: str | None) -> Machine:
    """The machine with other variables; None takes one away."""
    own = {k: v for k, v in {**machine.variables, **more}.items() if v is not None}
    return replace(machine, variables=own)


def faults(machine: Machine) -> list[str]:
    return [found.text for found in examine_ascend(machine) if found.well is False]


def hints(machine: Machine) -> list[str]:
    return [found.text for found in examine_ascend(machine) if found.well is None]


def one(machine: Machine) -> str:
    (found,) = faults(machine)
    return found


def test_a_good_server(machine: Machine) -> None:
    found = list(examine_ascend(machine))
    assert [str(f) for f in found if f.well is not True] == []
    said = "\n".join(map(str, found))
    for words in (
        "NPUs: davinci0, davinci1.", "Driver 25.2.0.", "Firmware 7.7.0.6.236.", "CANN 9.0.0 in",
        "Chip 1: 910B3, health OK, 3412 of 65536 MB of memory in use.", "libatb.so",
        "torch 2.10.0+cpu with torch-npu 2.10.0, made for CANN 9.0.0.", "TASK_QUEUE_ENABLE=2.",
    ):  # fmt: skip
        assert words in said


# --- hardware --------------------------------------------------------------------------------------


def test_no_device(machine: Machine) -> None:
    for n in (0, 1):
        (machine.root / f"dev/davinci{n}").unlink()
    assert "No NPU shows under /dev. Install the NPU's driver" in one(machine)
    (machine.root / ".dockerenv").touch()
    assert "Start the container with --device=/dev/davinci0 " in one(machine)


def test_a_helper_is_missing(machine: Machine) -> None:
    (machine.root / "dev/devmm_svm").unlink()
    assert "without /dev/devmm_svm. Reinstall the driver." in one(machine)
    inside = with_variables(machine, container="podman")
    assert "--device=/dev/davinci0 --device=/dev/devmm_svm." in one(inside)


def test_devices_that_the_user_may_not_open(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "davinci1")
    assert "may not open /dev/davinci1. Add the user to the devices' group" in one(machine)


@pytest.mark.parametrize("what", ["driver", "firmware"])
def test_driver_and_firmware(machine: Machine, what: str) -> None:
    (machine.root / "usr/local/Ascend" / what / "version.info").unlink()
    assert f"No {what}: /usr/local/Ascend/{what}/version.info is absent. Install" in one(machine)
    inside = with_variables(machine, KUBERNETES_SERVICE_HOST="10.0.0.1")
    if what == "driver":
        assert "-v /usr/local/Ascend/driver:/usr/local/Ascend/driver" in one(inside)
    else:
        assert "Firmware: a container does not show it." in hints(inside)


def test_a_driver_elsewhere(machine: Machine) -> None:
    (machine.root / "opt").mkdir()
    (machine.root / "usr/local/Ascend").rename(machine.root / "opt/ascend")
    assert len(faults(machine)) == 2
    record = machine.root / "etc/ascend_install.info"
    record.parent.mkdir()
    record.write_text(
        "UserName=x\nDriver_Install_Path_Param=/opt/ascend/\nFirmware_Install_Path_Param=/opt/ascend\n"
    )
    assert faults(machine) == []
    (machine.root / "opt/ascend/driver/version.info").unlink()
    assert "No driver: /opt/ascend/driver/version.info is absent" in one(machine)


def test_an_ill_chip(machine: Machine) -> None:
    ill = SMI.replace(
        "| 1     910B3               | OK      ", "| 1     910B3               | Alarm   "
    )
    assert "Chip 1: 910B3, health Alarm" in one(replace(machine, smi=ill))


def test_a_driver_without_chips_and_without_its_tool(machine: Machine) -> None:
    assert "lists no chip" in one(replace(machine, smi="| npu-smi 25.2.0 |\n"))
    assert faults(replace(machine, smi=None)) == []
    assert "not known" in hints(replace(machine, smi=None))[0]


# --- CANN ------------------------------------------------------------------------------------------


def test_cann_that_is_not_in_force(machine: Machine) -> None:
    assert "ASCEND_HOME_PATH is not set" in one(with_variables(machine, ASCEND_HOME_PATH=None))
    gone = with_variables(machine, ASCEND_HOME_PATH="/nowhere")
    assert "ASCEND_HOME_PATH=/nowhere is no folder" in one(gone)
    assert "source launch.sh env" in one(gone)
    first, second = faults(with_variables(machine, LD_LIBRARY_PATH=None))
    assert "leads to no libascendcl.so and no libhccl.so" in first
    assert "libatb.so. Install Ascend-cann-nnal" in second


def test_an_old_cann(machine: Machine) -> None:
    record = next(machine.root.rglob("ascend_toolkit_install.info"))
    record.write_text("version=8.2.RC1\n")
    assert "CANN 8.2.RC1 in" in one(machine)
    assert "8.3.RC1 or newer is needed. Upgrade to CANN 9.1.0" in one(machine)
    record.unlink()
    assert faults(machine) == []
    assert any("its version cannot be read" in text for text in hints(machine))


def test_operators_that_are_not_there(machine: Machine) -> None:
    assert "ASCEND_OPP_PATH=/x is no folder" in one(with_variables(machine, ASCEND_OPP_PATH="/x"))


# --- packages and variables ------------------------------------------------------------------------


def test_torch_and_torch_npu(machine: Machine) -> None:
    def installed(**packages: str) -> Machine:
        return replace(machine, packages={k.replace("_", "-"): v for k, v in packages.items()})

    assert "torch-npu is not installed" in one(installed(torch="2.10.0"))
    assert "torch-npu 2.9.0.post2 wants torch 2.9.0, not 2.10.0" in one(
        installed(torch="2.10.0", torch_npu="2.9.0.post2")
    )
    assert "wants torch 2.10.0, not None" in one(installed(torch_npu="2.10.0"))
    other = installed(torch="2.12.0", torch_npu="2.12.0")
    assert faults(other) == []
    assert "torch-npu 2.12.0 is not one of those made for CANN 9.0.0" in hints(other)[0]


@pytest.mark.parametrize("name", ascend.RECOMMENDED)
def test_a_variable_that_is_not_set_is_a_hint(machine: Machine, name: str) -> None:
    assert faults(with_variables(machine, **{name: None})) == []
    assert f"{name} is not set" in hints(with_variables(machine, **{name: None}))[0]
    assert hints(with_variables(machine, **{name: "x"})) == [f"{name}=x."]


def test_slow_settings_are_said(machine: Machine) -> None:
    assert "is slow" in hints(with_variables(machine, ASCEND_LAUNCH_BLOCKING="1"))[0]
    assert hints(with_variables(machine, ASCEND_LAUNCH_BLOCKING="0")) == []


@pytest.mark.parametrize("named", ["2", "0,0", "a", "", "-1"])
def test_visible_devices_that_are_not_here(machine: Machine, named: str) -> None:
    found = one(with_variables(machine, ASCEND_RT_VISIBLE_DEVICES=named))
    assert f"ASCEND_RT_VISIBLE_DEVICES={named} does not fit the NPUs here ([0, 1])" in found


def test_visible_devices_are_renumbered(machine: Machine) -> None:
    visible = with_variables(machine, ASCEND_RT_VISIBLE_DEVICES="1, 0")
    assert faults(visible) == []
    assert "these are npu:0 to npu:1" in "\n".join(f.text for f in examine_ascend(visible))


# --- in the report ---------------------------------------------------------------------------------


def report(machine: Machine, device: str) -> list[Finding]:
    return list(doctor.examine("embedded", device=device, machine=machine))


def test_the_report_speaks_of_an_npu_where_there_is_one(machine: Machine, tmp_path: Path) -> None:
    assert any("davinci0" in found.text for found in report(machine, "auto"))
    assert not any("davinci0" in found.text for found in report(machine, "cpu"))
    empty = Machine(root=tmp_path / "none", variables={}, smi=None, packages={})
    assert all(found.well is not False for found in report(empty, "auto"))
    assert any("No NPU shows" in found.text for found in report(empty, "npu"))


def test_a_torch_that_does_not_start_is_explained(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def broken(name: str, *rest: object) -> object:
        if name == "torch":
            raise RuntimeError(
                "Failed to load the backend extension: torch_npu.\nlibhccl.so: cannot open"
            )
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", broken)
    last = report(machine, "cpu")[-1]
    assert last.well is False
    assert "torch does not start (Failed to load the backend extension: torch_npu. lib" in last.text
    assert "source launch.sh env" in last.text


def test_a_driver_that_fails_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(device: object) -> tuple[str, int, int]:
        raise RuntimeError("NPU function error: aclInit, error code is 507033")

    monkeypatch.setattr(doctor, "describe", fails)
    assert cli.main(["doctor", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert "error code is 507033). The NPU could not be started" in said
    assert "231 tensors" in said  # and the report goes on
