"""The command: what it prints, what it refuses, and that an interruption loses nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
import typer
from runs import SIGNALLING, SMALL, assert_same, checkpoint, fkdrift, history, write_small_config
from typer.testing import CliRunner

from fkdrift.cli import console as terminal
from fkdrift.cli import doctor, options
from fkdrift.cli import main as cli
from fkdrift.hamiltonian.loading import available
from fkdrift.runs.ground_state import GroundState
from fkdrift.runs.methods import METHODS
from fkdrift.runs.methods.bridge import BridgeSettings
from fkdrift.runs.recipes import MODELS
from fkdrift.runs.settings import Settings
from fkdrift.settings import fields_of

RUNNER = CliRunner()
ENERGY = re.compile(r"-?\d+\.\d+\(\d+\)")


@pytest.fixture
def small(tmp_path):
    return write_small_config(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of a potential in a file."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "own.py").write_text(SIGNALLING)
    arguments = ("solve", "-p", "own.py:Quartic", "--config", write_small_config(folder), "--quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(GroundState, "plot", lambda state: {})
        result = invoke(*arguments, "--out", "whole")
    assert result.exit_code == 0, result.stderr
    return folder, arguments, result.stdout


def invoke(*arguments: object):
    result = RUNNER.invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


# Output


def test_version_and_help_do_not_import_torch():
    code = "import sys, fkdrift.cli.main; print(*[name in sys.modules for name in ('torch', 'scipy', 'matplotlib')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "False"]


WRONG = (
    ("slve",),
    ("solve", "-p", "harmonc"),
    ("solve", "-p", "x**2", "--drift", "no"),
    ("solve", "--potental", "harmonic"),
    ("solve", "-p", "harmonic", "-P", "omga=2"),
    ("solve", "-p", "harmonic", "--n-walkers", "1"),
    ("scan", "-p", "h2", "-P", "r=1:2:0.5"),
    ("exact", "-p", "harmonc"),
    ("bridge", "-p", "harmonc", "--from", "0", "--to", "1", "-T", "1"),
    ("bridge", "-p", "harmonic", "--form", "0"),
    ("pimc", "-p", "harmonc", "-T", "1"),
    ("resume", "nowhere"),
    ("resume", "nowhere", "--attol", "1"),
    ("show", "nowhere"),
    ("learn", "veo"),
    ("compress", "nothing.npy", "--model", "nowhere", "-o", "x"),
)
"""Command lines with a name or an option that is not there."""


def test_what_is_wrong_is_said_without_torch(tmp_path):
    """Importing torch is what takes seconds; no answer below waits for it."""
    code = f"""
import sys
from typer.testing import CliRunner
from fkdrift.cli.main import app
for line in {WRONG!r}:
    result = CliRunner().invoke(app, line)
    print(result.exit_code, 'torch' in sys.modules, *line)
for command in ((), ("solve",), ("bridge",), ("resume",), ("learn",)):
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
assert CliRunner().invoke(app, ["--version"]).exit_code == 0
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.splitlines() == [f"2 False {' '.join(line)}" for line in WRONG], result.stderr
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_potentials(shell):
    begun = {"bash": {"COMP_WORDS": "fkdrift solve -p harm", "COMP_CWORD": "3"}}
    words = {"_TYPER_COMPLETE_ARGS": "fkdrift solve -p harm", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = {"_FKDRIFT_COMPLETE": f"complete_{shell}", **begun.get(shell, words)}
    found = RUNNER.invoke(cli.app, [], prog_name="fkdrift", env=environment).stdout
    assert "harmonic_bosons" in found
    assert "morse" not in found


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_can_be_left_out(no_color, coloured):
    shown = RUNNER.invoke(cli.app, ["solve", "-p", "harmonc"], color=True, env={"NO_COLOR": no_color}).stderr
    assert "harmonic" in shown
    assert ("\x1b[" in shown) == coloured


def test_version():
    result = invoke("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"fkdrift \d+\.\d+\.\d+\S*\n", result.stdout)


def test_solve_writes_a_folder(tmp_path, small, rough_figures):
    out = tmp_path / "run"
    result = invoke("solve", "-p", "harmonic", "-P", "omega=2", "--config", small, "--seed", 3, "--out", out)
    assert result.exit_code == 0
    assert "variational" in result.stdout
    assert str(out) in result.stdout
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    figures = {f"figures/{name}.png" for name in ("energy", "wavefunction", "trajectories")}
    assert files == {".lock", "result.json", "config.toml", "history.csv", "checkpoint.pt"} | figures
    written = tomllib.loads((out / "config.toml").read_text())
    assert written["potential"]["parameters"]["omega"] == 2.0
    assert written["settings"]["seed"] == 3
    assert written["settings"]["width"] == SMALL["width"]
    shown, _, figures_shown = invoke("show", out).stdout.partition("figures in ")
    assert shown.strip() in result.stdout
    assert figures_shown.strip() == f"{out / 'figures'}: energy, trajectories, wavefunction"


def test_config_of_a_run_repeats_it(tmp_path, small, no_figures):
    first, second = tmp_path / "first", tmp_path / "second"
    invoke("solve", "-p", "morse", "-P", "D=8", "--config", small, "--seed", 5, "--out", first)
    assert invoke("solve", "--config", first / "config.toml", "--out", second).exit_code == 0
    assert history(first) == history(second)
    assert_same(checkpoint(first), checkpoint(second))


def test_command_line_wins_over_file(tmp_path, small, no_figures):
    out = tmp_path / "run"
    small.write_text(small.read_text() + '[potential]\nname = "harmonic"\nparameters = { omega = 2.0, n_dims = 2 }\n')
    invoke("solve", "--config", small, "-P", "omega=3", "--n-walkers", 16, "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert result["potential"]["parameters"] == {"omega": 3.0, "n_dims": 2, "n_particles": 1}
    assert result["settings"]["n_walkers"] == 16
    invoke("solve", "--config", small, "-p", "anharmonic", "--out", out, "--overwrite")  # without the file's parameters
    assert json.loads((out / "result.json").read_text())["potential"]["parameters"] == {"lam": 1.0}


def test_quiet_prints_the_energy_only(small):
    result = invoke("solve", "-p", "x**2/2 + 0.1*x**4", "--config", small, "--quiet")
    assert result.exit_code == 0
    assert ENERGY.fullmatch(result.stdout.strip())
    assert result.stderr == ""


def test_exact_prints_levels_in_other_units():
    result = invoke("exact", "-p", "hydrogen", "--levels", 1, "--energy-unit", "eV", "--length-unit", "angstrom")
    assert "shown in eV, angstrom" in result.stdout
    assert "-13.60569" in result.stdout
    assert "continuum starts at 0" in result.stdout
    plain = json.loads(invoke("exact", "-p", "hydrogen", "-n", 1, "--energy-unit", "eV", "--json").stdout)
    assert plain["energies"][0] == pytest.approx(-0.5, abs=1e-9)
    assert plain["units"]["natural"] == {"energy": "hartree", "length": "bohr"}
    assert plain["units"]["shown"] == {"energy": "eV", "length": "bohr"}


def test_exact_prints_levels():
    result = invoke("exact", "-p", "morse", "--levels", 2)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1"]
    assert abs(float(rows[0][1]) - 2.1110679775) < 1e-9
    assert abs(float(rows[1][2]) - 3.472135955) < 1e-8
    assert "method:" in result.stdout


def test_potentials_lists_every_plug_in():
    listed = json.loads(invoke("potentials", "--json").stdout)
    assert {row["name"] for row in listed} == set(available())
    morse = next(row for row in listed if row["name"] == "morse")
    assert morse["parameters"] == {"D": 10.0, "a": 1.0}
    assert abs(morse["known_energy"]["value"] - 2.1110679775) < 1e-9
    text = invoke("potentials").stdout
    for row in listed:
        assert row["name"] in text
        assert row["formula"] in text


def test_doctor_can_fail():
    assert doctor.passes(0.50001, 1e-5, 0.5)
    assert not doctor.passes(0.5001, 1e-5, 0.5)  # far outside its error bar
    assert not doctor.passes(0.5001, 2e-3, 0.5)  # an error bar too wide to mean anything
    assert not doctor.passes(float("nan"), float("nan"), 0.5)
    assert not doctor.passes(0.8125, 1e-4, doctor.SELF_TEST["anharmonic"])  # what an untrained drift gives


def test_doctor_reports_a_failure(monkeypatch):
    monkeypatch.setattr(doctor, "SETTINGS", Settings(**SMALL))
    monkeypatch.setattr(doctor, "SPEED", doctor.SPEED.changed(n_walkers=32, path_step=1 / 4))
    monkeypatch.setattr(doctor, "SELF_TEST", {"harmonic": 0.4})
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert "torch" in result.stdout
    assert "walker-steps per second" in result.stdout


@pytest.mark.parametrize("command", ["solve", "scan", *METHODS.names(), *(f"learn {name}" for name in MODELS.names())])
def test_every_computing_command_has_the_common_options(command):
    shown = invoke(*command.split(), "--help").stdout
    common = ("seed", "out", "overwrite", "config", "max-seconds", "device", "dtype", "threads", "quiet", "json")
    for name in common:
        assert re.search(rf"^  .*--{name}\b", shown, flags=re.MULTILINE), name
    for option in re.findall(r"^  .*?(--[a-z-]+)", shown, flags=re.MULTILINE):
        assert shown.count(f" {option} ") <= 2, option


def test_help_shows_the_defaults_of_the_fields():
    shown = " ".join(invoke("solve", "--help").stdout.split())
    for field in fields_of(Settings).values():
        assert field.help in shown
        if field.shown_default != "none":
            assert f"{field.help} [default: {field.shown_default}]" in shown


def test_json_is_the_result_and_nothing_else(tmp_path, small, no_figures):
    out = tmp_path / "run"
    printed = json.loads(invoke("solve", "-p", "harmonic", "--config", small, "--out", out, "--json").stdout)
    written = json.loads((out / "result.json").read_text())
    written.pop("sha256")
    assert printed == written == json.loads(invoke("show", out, "--json").stdout)
    levels = json.loads(invoke("exact", "-p", "morse", "-n", 2, "--json").stdout)
    assert abs(levels["energies"][0] - 2.1110679775) < 1e-9


def test_lists_are_given_by_commas_or_again():
    @options.computing(fields_of(BridgeSettings), common=("quiet",))
    def command(request: options.Request) -> None:
        seen.append(request)

    seen: list[options.Request] = []
    one = typer.Typer()
    one.command()(command)
    RUNNER.invoke(one, ["--from", "-1,0.5", "--to", "1", "--to", "2", "-T", "3", "-q"])
    assert seen == [options.Request({"start": (-1.0, 0.5), "end": (1.0, 2.0), "time": 3.0}, quiet=True)]


# Refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve"], ["which potential", "fkdrift potentials"]),
        (["solve", "-p", "morze"], ["unknown potential", "morse"]),
        (["solve", "-p", "morse", "-P", "depth=3"], ["no parameter", "depth"]),
        (["solve", "-p", "morse", "-P", "D=shallow"], ["D = 'shallow'", "number"]),
        (["solve", "-p", "morse", "-P", "D"], ["name=value"]),
        (["solve", "-p", "x**2 + foo(x)"], ["foo", "^"]),
        (["solve", "-p", "x**2 +"], ["^"]),
        (["solve", "-p", "harmonic", "--drift", "spline"], ["spline", "gradient", "mlp"]),
        (["solve", "-p", "harmonic", "--n-walkers", "-4"], ["n_walkers = -4", "at least 2"]),
        (["solve", "-p", "harmonic", "--method", "flow", "--drift", "mlp"], ["drift is not used with method = flow"]),
        (["solve", "-p", "harmonic", "--method", "flow", "--optimiser", "natural"], ["optimiser is not used"]),
        (["solve", "-p", "harmonic", "--learning-rate", "0.1"], ["learning_rate is not used", "optimiser adam"]),
        (["solve", "-p", "harmonic", "--n-walker", "3"], ["--n-walker", "--n-walkers"]),
        (["sovle", "-p", "harmonic"], ["No such command 'sovle'", "solve"]),
        (["learn", "vea", "-d", "digits"], ["vea", "markov", "vae"]),
        (["learn", "vae"], ["which data", "--data"]),
        (["learn", "vae", "-d", "digits", "--network", "linear", "--depth", "3"], ["depth is not used", "network mlp"]),
        (["learn", "flow", "-d", "digits", "--device", "cuda:77"], ["cuda:77", "--device cpu"]),
        (["bridge", "-p", "harmonic", "--from", "-1"], ["--to, --time missing"]),
        (["bridge", "-p", "harmonic", "--from", "-1", "--to", "one", "--time", "1"], ["--to one", "-1 or 0.5,0.5"]),
        (["pimc", "-p", "harmonic"], ["--temperature missing"]),
        (["pimc", "-p", "harmonic", "-T", "0"], ["temperature = 0.0", "above 1e-100"]),
        (["pimc", "-p", "harmonic", "-T", "1e300"], ["temperature = 1e+300", "below 1e+100"]),
        (["solve", "-p", ""], ["which potential", "fkdrift potentials"]),
        (["solve", "-p", "nothing.csv"], ["there is no file 'nothing.csv'"]),
        (["solve", "-p", "nothing.py:Well"], ["there is no file 'nothing.py'"]),
        (["solve", "-p", "harmonic", "--seed", "9" * 25], ["seed is too large", "9.22e+18"]),
        (["solve", "-p", "harmonic", "--device", "gpu"], ["'gpu' is not a device", "cpu"]),
        (["solve", "-p", "harmonic", "--out", ""], ["--out", "is empty"]),
        (["scan", "-p", "harmonic", "-P", "omega=0:1e9:1e-9"], ["more than 1,000,000 values", "longer STEP"]),
        (["learn", "vae", "-d", "nothing.npy"], ["there is no file nothing.npy"]),
        (["learn", "vae", "-d", "run:nowhere"], ["there is no folder nowhere"]),
        (["exact", "-p", "harmonic", "-P", "n_dims=1000000"], ["no exact method", "10,000"]),
        (["pimc", "-p", "harmonic", "-T", "1", "--slices", "5"], ["n_slices = 5", "even", "primitive"]),
        (["pimc", "-p", "helium", "-T", "1"], ["helium", "bounded below", "solve"]),
        (["solve", "-p", "harmonic", "--device", "cuda:7"], ["cuda:7", "--device cpu"]),
        (["solve", "-p", "harmonic", "--config", "nowhere.toml"], ["nowhere.toml"]),
        (["solve", "-p", "harmonic", "--n-walkers", "100000000000000"], ["GB are free", "--n-walkers"]),
        (["exact", "-p", "helium"], ["helium"]),
        (["exact", "-p", "morse", "--energy-unit", "K"], ["hbar = m = 1"]),
        (["solve", "-p", "morse", "--energy-unit", "K"], ["hbar = m = 1"]),
        (["solve", "-p", "morse", "--length-unit", "inch"], ["length_unit = 'inch'", "angstrom, bohr"]),
        (["exact", "-p", "hydrogen", "--energy-unit", "Ev"], ["unknown energy unit 'Ev'", "hartree", "kcal/mol"]),
        (["show", "nowhere"], ["nowhere", "there is no folder"]),
        (["resume", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_clear_complaint(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_replaced(tmp_path, small, no_figures):
    out = tmp_path / "run"
    assert invoke("solve", "-p", "harmonic", "--config", small, "--out", out).exit_code == 0
    before = (out / "result.json").read_bytes()
    result = invoke("solve", "-p", "morse", "--config", small, "--out", out)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert "fkdrift resume" in result.stderr
    assert (out / "result.json").read_bytes() == before
    assert invoke("solve", "-p", "morse", "--config", small, "--out", out, "--overwrite").exit_code == 0
    assert json.loads((out / "result.json").read_text())["potential"]["name"] == "morse"


def test_out_must_be_a_folder_that_can_be_made(tmp_path, small):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = invoke("solve", "-p", "harmonic", "--config", small, "--out", out)
        assert result.exit_code == 2
        assert "folder" in result.stderr


def test_settings_of_a_file_are_checked(tmp_path):
    config = write_small_config(tmp_path, n_walker=3)
    result = invoke("solve", "-p", "harmonic", "--config", config)
    assert result.exit_code == 2
    assert "did you mean n_walkers?" in result.stderr


# Interruptions


@pytest.mark.parametrize(
    ("name", "at", "phases"), [("SIGINT", 6, {"training"}), ("SIGTERM", 110, {"trajectories", "sampling"})]
)
def test_interrupted_and_resumed_equals_uninterrupted(whole, name, at, phases, monkeypatch, no_figures):
    """A process with a real signal; resumed in another one, this."""
    folder, arguments, printed = whole
    before = set(folder.iterdir())
    stopped = fkdrift(*arguments, folder=folder, AT=str(at), SIGNAL=name)
    assert stopped.returncode == 130, stopped.stderr
    (saved,) = set(folder.iterdir()) - before
    assert saved.name.startswith("fkdrift-")
    assert f"fkdrift resume {saved.name} --trust" in stopped.stderr
    assert json.loads((saved / "result.json").read_text())["status"] == "interrupted"
    rows, all_rows = history(saved), history(folder / "whole")
    assert 1 < len(rows) < len(all_rows)
    assert rows == all_rows[: len(rows)]
    assert rows[-1][0] in phases
    monkeypatch.chdir(folder)
    resumed = invoke("resume", saved.name, "--trust", "--quiet")
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stdout == printed
    assert history(saved) == all_rows
    assert_same(checkpoint(saved), checkpoint(folder / "whole"))
    results = [json.loads((path / "result.json").read_text()) for path in (saved, folder / "whole")]
    assert results[0]["energies"] == results[1]["energies"]
    assert results[0]["status"] == "finished"


def test_code_in_a_folder_needs_trust(whole):
    folder, _, _ = whole
    refused = invoke("resume", folder / "whole")
    assert refused.exit_code == 2
    assert re.search(r"^fkdrift: .* names code, .*own\.py:Quartic, .*add --trust", refused.stderr)
    assert invoke("show", folder / "whole").exit_code == 0  # plain data


def test_interrupted_runs_do_not_replace_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(terminal.new_folder("fkdrift-x**2/2-seed0")) == "fkdrift-x__2_2-seed0"
    (tmp_path / "fkdrift-morse-seed0").mkdir()
    (tmp_path / "fkdrift-morse-seed0-2").mkdir()
    assert str(terminal.new_folder("fkdrift-morse-seed0")) == "fkdrift-morse-seed0-3"


def test_resume_goes_further(tmp_path, small, no_figures):
    out = tmp_path / "run"
    invoke("solve", "-p", "morse", "--config", small, "--out", out)
    rows = len(history(out))
    assert invoke("resume", out, "--n-blocks", SMALL["n_blocks"] + 7).exit_code == 0
    assert len(history(out)) == rows + 7
    assert tomllib.loads((out / "config.toml").read_text())["settings"]["n_blocks"] == SMALL["n_blocks"] + 7


def test_pimc_prints_the_energy_at_a_temperature(tmp_path):
    out = tmp_path / "warm"
    size = ["--slices", "4", "--chains", "16", "--blocks", "4", "--n-equilibration", "4"]
    shown = RUNNER.invoke(cli.app, ["pimc", "-p", "harmonic", "-T", "0.5", *size, "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "specific heat" in shown.stdout
    again = RUNNER.invoke(cli.app, ["show", str(out)])
    assert "T = 0.5" in again.stdout
    further = RUNNER.invoke(cli.app, ["resume", str(out), "--n-blocks", "6", "--quiet"])
    assert further.exit_code == 0, further.output
    assert json.loads((out / "result.json").read_text())["n_blocks"] == 6
