"""Durable invocations from outside: spawn, result, cancel, batches, keys, retries, deadlines, dead letters, schedules."""

import json
import os
import subprocess

from cluster import BIN, FAILED, UNKNOWN, USAGE, ClusterCase, spawn, wait_for

ECHO = "def handle(payload: bytes):\n    return payload[::-1]\n"
PICKY = """
import os, time

SEEN = {}

def handle(p):
    name, what = p["name"], p["what"]
    SEEN[name] = SEEN.get(name, 0) + 1
    if what == "fail":
        raise RuntimeError("no luck with " + name)
    if what == "twice" and SEEN[name] < 3:
        raise RuntimeError("not yet")
    if what == "crash":
        os._exit(9)
    if what == "sleep":
        time.sleep(p["seconds"])
    return {"name": name, "times": SEEN[name]}
"""


def want(name, what, **more):
    return json.dumps({"name": name, "what": what, **more})


class Durable(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_python("echo", ECHO, scaling="{max: 2}")
        cls.cluster.deploy_python("picky", PICKY, scaling="{max: 1}", retries="{max: 3, backoff: 50ms}",
                                  limits="{poison: 2}")
        cls.cluster.deploy_python("once", PICKY, scaling="{max: 1}", retries="{max: 0}")

    def spawn(self, name, data="", *args, **options):
        return self.cluster.skep("spawn", name, "--data", data, *args, **options).stdout.decode().strip()

    def result(self, invocation, *args, **options):
        return self.cluster.skep("result", invocation, "--wait", "--timeout", "30s", *args, **options)

    def outcome(self, invocation):
        answer = self.result(invocation, "-o", "json", check=False)
        return json.loads(answer.stdout)

    # -- One --

    def test_a_spawn_prints_its_id_and_its_result_can_be_had(self):
        invocation = self.spawn("echo", "abc")
        self.assertRegex(invocation, r"^v-[0-9A-HJKMNP-TV-Z]{26}$")
        self.assertEqual(self.result(invocation).stdout, b"cba")
        self.assertEqual(self.cluster.skep("result", invocation).stdout, b"cba")

    def test_wait_prints_the_result_at_once(self):
        self.assertEqual(self.cluster.skep("spawn", "echo", "-", "--wait", input=b"hello").stdout, b"olleh")

    def test_the_outcome_as_json_tells_all(self):
        invocation = self.spawn("echo", "xy", "--priority", "7", "--key", "json-1")
        got = self.outcome(invocation)
        self.assertEqual((got["state"], got["code"], got["output"], got["priority"], got["key"], got["function"]),
                         ("done", "OK", "yx", 7, "json-1", "echo"))
        self.assertGreater(got["expires_ms"], got["ended_ms"])

    def test_a_prefix_of_an_id_suffices(self):
        invocation = self.spawn("echo", "prefix")
        self.assertEqual(self.result(invocation[:-6]).stdout, b"xiferp")
        self.fails(USAGE, "result", "v-0", says="is the beginning of")
        self.fails(FAILED, "result", "v-7" + "Z" * 25, says="known")

    def test_payloads_over_the_logs_limit_go_around_it(self):
        payload = os.urandom(300_000)
        self.assertEqual(self.cluster.skep("spawn", "echo", "-", "--wait", input=payload).stdout, payload[::-1])

    def test_what_has_not_ended_says_so(self):
        invocation = self.spawn("echo", "later", "--delay", "1h")
        answer = self.cluster.skep("result", invocation, check=False)
        self.assertEqual((answer.returncode, answer.stdout), (UNKNOWN, b""))
        self.assertIn(b"has not ended", answer.stderr)
        self.fails(UNKNOWN, "result", invocation, "--wait", "--timeout", "100ms", says="has not ended")

    def test_an_unknown_function_is_told(self):
        self.fails(FAILED, "spawn", "nobody", says="no function is named nobody")

    def test_wrong_options_are_usage(self):
        self.fails(USAGE, "spawn", "echo", "--priority", "11", says="--priority")
        self.fails(USAGE, "spawn", "echo", "--ttl", "200h", says="--ttl")
        self.fails(USAGE, "spawn", "echo", "--delay", "1s", "--at", "2027-01-01T00:00:00Z", says="one of --delay and --at")
        self.fails(USAGE, "spawn", "echo", "--at", "tomorrow", says="RFC 3339")
        self.fails(USAGE, "spawn", "echo", "--each", "--data", "x", says="--each")
        self.fails(USAGE, "result", "xyz", says="not an id")
        self.fails(FAILED, "result", "v-xyz!", says="known")

    def test_a_delay_is_waited_for(self):
        invocation = self.spawn("echo", "soon", "--delay", "700ms")
        got = self.outcome(invocation)
        self.assertEqual(got["output"], "noos")
        self.assertGreaterEqual(got["not_before_ms"] - got["created_ms"], 700)
        self.assertGreaterEqual(got["ended_ms"], got["not_before_ms"])

    # -- Keys --

    def test_a_key_is_one_invocation(self):
        first = self.spawn("echo", "k", "--key", "order-17")
        again = self.spawn("echo", "k", "--key", "order-17")
        self.assertEqual(first, again)
        self.assertNotEqual(first, self.spawn("echo", "k", "--key", "order-18"))
        told = json.loads(self.cluster.skep("spawn", "echo", "--data", "k", "--key", "order-17", "-o", "json").stdout)
        self.assertEqual(told, {"invocation": first, "existing": True})

    def test_a_key_with_another_payload_is_a_conflict(self):
        self.spawn("echo", "one", "--key", "conflict")
        self.fails(FAILED, "spawn", "echo", "--data", "two", "--key", "conflict", says="another payload")

    # -- Failing --

    def test_a_failure_is_tried_again(self):
        got = self.outcome(self.spawn("picky", want("again", "twice")))
        self.assertEqual((got["state"], got["attempts"], json.loads(got["output"])["times"]), ("done", 3, 3))

    def test_when_retries_are_used_up_it_is_a_dead_letter(self):
        invocation = self.spawn("once", want("dead", "fail"))
        answer = self.result(invocation, check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertIn(b"is a dead letter after 1 attempts: ", answer.stderr)
        self.assertIn(b"no luck with dead", answer.stderr)
        dead = self.cluster.rows("dead", "list", "once")
        self.assertIn(invocation, [row["invocation"] for row in dead])
        self.assertEqual(self.cluster.rows("dead", "show", invocation)[0]["state"], "dead")

    def test_a_dead_letter_can_be_redriven_and_purged(self):
        invocation = self.spawn("once", want("redrive", "twice"))
        self.assertEqual(self.outcome(invocation)["state"], "dead")
        self.cluster.skep("dead", "redrive", invocation)
        self.assertEqual(self.outcome(invocation)["state"], "dead")
        self.cluster.skep("dead", "redrive", "-", input=invocation.encode())
        self.assertEqual(self.outcome(invocation)["state"], "done")
        self.fails(FAILED, "dead", "redrive", invocation)
        other = self.spawn("once", want("purge", "fail"))
        self.assertEqual(self.outcome(other)["state"], "dead")
        self.fails(USAGE, "dead", "purge", other, says="--yes")
        self.cluster.skep("dead", "purge", other, "--yes")
        self.fails(FAILED, "result", other)

    def test_all_dead_letters_of_a_function_at_once(self):
        self.cluster.deploy_python("doomed", PICKY, retries="{max: 0}")
        for i in range(3):
            self.assertEqual(self.outcome(self.spawn("doomed", want(f"d{i}", "fail")))["state"], "dead")
        self.assertIn(b"3 done", self.cluster.skep("dead", "redrive", "--function", "doomed").stdout)
        wait_for(lambda: len(self.cluster.rows("dead", "list", "doomed")) == 3, "dead again")
        self.assertIn(b"3 done", self.cluster.skep("dead", "purge", "--function", "doomed", "--yes").stdout)
        self.assertEqual(self.cluster.rows("dead", "list", "doomed"), [])

    def test_an_input_that_kills_its_instances_is_poison(self):
        got = self.outcome(self.spawn("picky", want("poison", "crash")))
        self.assertEqual((got["state"], got["crashes"]), ("dead", 2))

    def test_a_deadline_ends_the_waiting(self):
        got = self.outcome(self.spawn("once", want("late", "sleep", seconds=0), "--delay", "1h", "--deadline", "500ms"))
        self.assertEqual((got["state"], got["code"]), ("dead", "TIMEOUT"))
        self.assertIn("deadline", got["message"])

    # -- Canceling --

    def test_cancel_ends_what_waits_and_what_runs(self):
        waits = self.spawn("echo", "w", "--delay", "1h")
        self.assertIn(b"canceled", self.cluster.skep("cancel", waits, "--reason", "changed my mind").stdout)
        answer = self.result(waits, check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertIn(b"is canceled", answer.stderr)
        self.assertIn(b"changed my mind", answer.stderr)
        runs = self.spawn("once", want("runs", "sleep", seconds=60))
        wait_for(lambda: self.cluster.rows("invocation", "show", runs)[0]["state"] == "running", "it runs")
        self.cluster.skep("cancel", "-", input=runs.encode() + b"\n")
        self.assertEqual(self.outcome(runs)["state"], "canceled")
        self.fails(FAILED, "cancel", runs)
        after = self.outcome(self.spawn("once", want("after", "sleep", seconds=0)))
        self.assertEqual(after["state"], "done", after)

    # -- Many --

    def test_each_line_is_a_spawn_in_order(self):
        lines = [b"line %d" % i for i in range(1000)]
        made = self.cluster.skep("spawn", "echo", "--each", input=b"\n".join(lines) + b"\n")
        ids = made.stdout.split()
        self.assertEqual(len(set(ids)), 1000)
        self.assertIn(b"1000 accepted, 0 refused", made.stderr)
        answer = self.cluster.skep("result", "-", "--wait", input=b"\n".join(ids))
        self.assertEqual(answer.stdout.split(b"\n")[:-1], [line[::-1] for line in lines])

    def test_each_with_wait_prints_results_in_order(self):
        answer = self.cluster.skep("spawn", "echo", "--each", "--wait", input=b"ab\n\ncd")
        self.assertEqual(answer.stdout, b"ba\n\ndc\n")

    def test_each_with_a_key_can_be_given_again(self):
        lines = [b"%d\n" % i for i in range(100)]
        first = self.cluster.skep("spawn", "echo", "--each", "--key", "batch", input=b"".join(lines[:60]))
        again = self.cluster.skep("spawn", "echo", "--each", "--key", "batch", input=b"".join(lines))
        self.assertEqual(again.stdout.split()[:60], first.stdout.split())
        self.assertEqual(len(set(again.stdout.split())), 100)

    def test_a_refused_line_is_named_and_the_others_are_accepted(self):
        self.cluster.skep("spawn", "echo", "--each", "--key", "mixed", input=b"a\nb\nc\n")
        answer = self.cluster.skep("spawn", "echo", "--each", "--key", "mixed", input=b"a\nX\nc\n", check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertEqual(answer.stdout.split()[1], b"-")
        self.assertIn(b"line 2: ", answer.stderr)
        self.assertIn(b"2 accepted, 1 refused", answer.stderr)

    def test_one_failure_among_many_results_is_told(self):
        ids = [self.spawn("once", want("ok", "sleep", seconds=0)), self.spawn("once", want("bad", "fail"))]
        for i in ids:
            self.outcome(i)
        answer = self.cluster.skep("result", "-", input="\n".join(ids).encode(), check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertEqual(answer.stdout.splitlines()[1], b"-")
        self.assertIn(b"no luck with bad", answer.stderr)
        rows = self.cluster.skep("result", "-", "-o", "json", input="\n".join(ids).encode(), check=False).stdout
        self.assertEqual([json.loads(line)["state"] for line in rows.splitlines()], ["done", "dead"])

    # -- Limits --

    def test_a_functions_queue_is_bounded(self):
        self.cluster.deploy_python("narrow", ECHO, limits="{queue: 2}")
        for i in range(2):
            self.spawn("narrow", str(i), "--delay", "1h")

        def limited():
            return sum(self.cluster.metric("skep_spawns_limited_total", name) for name in ("s1", "s2", "s3"))

        before = limited()
        waiting = self.cluster.start_skep("spawn", "narrow", "--data", "3", "--delay", "1h", stdout=subprocess.DEVNULL)
        # It is refused and waits for room: cancel makes some.
        wait_for(lambda: limited() > before, "a refusal")
        self.assertIsNone(waiting.poll())
        rows = self.cluster.rows("invocation", "list", "narrow")
        self.assertEqual(len([r for r in rows if r["state"] == "delayed"]), 2)
        self.cluster.skep("cancel", rows[0]["invocation"])
        self.assertEqual(waiting.wait(50), 0)

    def most_running(self, function, seconds):
        """Spawns four that sleep so long, and returns how many of them were seen to run at once."""
        ids = [self.spawn(function, want(f"{function}{i}", "sleep", seconds=seconds)) for i in range(4)]
        most = 0

        def over():
            nonlocal most
            states = [r["state"] for r in self.cluster.rows("invocation", "list", function)]
            most = max(most, states.count("running"))
            return not any(state in ("queued", "running", "ending") for state in states)

        wait_for(over, f"the end of what {function} does", 60)
        self.assertEqual([self.outcome(i)["state"] for i in ids], ["done"] * 4)
        self.cluster.skep("function", "delete", function, "--yes")  # its instances leave the node to others
        return most

    def test_running_is_limited_per_function(self):
        self.cluster.deploy_python("alone", PICKY, scaling="{max: 4}", limits="{running: 1}")
        self.cluster.deploy_python("together", PICKY, scaling="{min: 2, max: 4}")
        self.assertEqual(self.most_running("alone", 1.5), 1)
        self.assertGreaterEqual(self.most_running("together", 2), 2)

    def test_settings_limit_tenants(self):
        self.spawn("echo", "tenant")
        tenants = {row["tenant"]: row for row in self.cluster.rows("tenant", "list")}
        self.assertEqual({row["weight"] for row in tenants.values()}, {1})
        self.cluster.deploy_python("shared", PICKY, scaling="{min: 2, max: 4}")
        self.assertGreaterEqual(self.most_running("shared", 2), 2)
        for tenant in tenants:
            key = f"tenant.{tenant}.running"
            self.addCleanup(self.cluster.skep, "setting", "set", key, "")
            self.cluster.skep("setting", "set", key, "1")
            self.assertIn({"key": key, "value": "1"}, self.cluster.rows("setting", "list"))
        self.cluster.deploy_python("sharing", PICKY, scaling="{min: 2, max: 4}")
        self.assertEqual(self.most_running("sharing", 1.5), 1)

    # -- Schedules --

    def test_a_schedule_spawns_by_itself(self):
        self.cluster.deploy_python("clock", ECHO, schedules='[{name: tick, cron: "@every 1s", payload: tock}]')
        rows = self.cluster.rows("schedule", "list", "clock")
        self.assertEqual([(r["schedule"], r["cron"]) for r in rows], [("tick", "@every 1s")])

        def fired():
            return [r for r in self.cluster.rows("invocation", "list", "clock") if r["state"] == "done"]

        done = wait_for(lambda: len(fired()) >= 2 and fired(), "the schedule fired twice")
        self.assertEqual(self.result(done[0]["invocation"]).stdout, b"kcot")
        self.cluster.skep("function", "delete", "clock", "--yes")


class Survival(ClusterCase):
    """Crashes between the promise and the work."""

    SCHEDULERS, AGENTS = 3, 2

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_python("slow", "import time\ndef handle(p: bytes):\n    time.sleep(0.05)\n    return p\n",
                                  scaling="{max: 4}")

    def test_what_was_promised_is_done_when_the_leader_is_killed(self):
        lines = b"".join(b"a%d\n" % i for i in range(300))
        ids = self.cluster.skep("spawn", "slow", "--each", input=lines).stdout
        leader = self.cluster.leader()
        self.cluster.kill(leader)
        answer = self.cluster.skep("result", "-", "--wait", "--timeout", "60s", input=ids, timeout=90)
        self.assertEqual(answer.stdout, lines)
        self.cluster.restart(leader)

    def test_a_batch_goes_on_when_the_leader_changes(self):
        lines = b"".join(b"b%d\n" % i for i in range(20000))
        path = os.path.join(self.cluster.folder, "batch")
        with open(path, "wb") as f:
            f.write(lines)
        out = os.path.join(self.cluster.folder, "ids")
        with open(path, "rb") as source, open(out, "wb") as ids:
            process = spawn([os.path.join(BIN, "skep"), "spawn", "slow", "--each", "--delay", "1h"],
                            stdin=source, stdout=ids, stderr=subprocess.DEVNULL, env=self.cluster.environ)
            wait_for(lambda: len(self.cluster.rows("invocation", "list", "slow")) > 10, "the batch has begun")
            leader = self.cluster.leader()
            self.cluster.kill(leader)
            self.assertIsNone(process.poll(), "the batch was over before the leader was killed")
            self.assertEqual(process.wait(90), 0)
        self.cluster.restart(leader)
        with open(out, "rb") as f:
            self.assertEqual(len(set(f.read().split())), 20000)

    def test_work_of_a_killed_agent_is_done_elsewhere(self):
        self.cluster.deploy_python("slower", "import time\ndef handle(p: bytes):\n    time.sleep(1)\n    return p\n",
                                   scaling="{max: 4}")
        lines = b"".join(b"c%d\n" % i for i in range(40))
        ids = self.cluster.skep("spawn", "slower", "--each", input=lines).stdout

        def running():
            return next((r["node"] for r in self.cluster.rows("invocation", "list", "slower") if r["state"] == "running"), "")

        agent = wait_for(running, "one of them runs", 60)
        self.cluster.kill(agent)
        self.addCleanup(self.cluster.restart, agent)
        answer = self.cluster.skep("result", "-", "--wait", "--timeout", "80s", input=ids, timeout=100)
        self.assertEqual(answer.stdout, lines)

    def test_an_agent_that_restarts_delivers_what_ran_meanwhile(self):
        self.cluster.deploy_python("long", "import time\ndef handle(p: bytes):\n    time.sleep(8)\n    return p\n",
                                   scaling="{max: 1}", retries="{max: 0}")
        invocation = self.cluster.skep("spawn", "long", "--data", "x").stdout.decode().strip()

        def running():
            row = self.cluster.rows("invocation", "show", invocation)[0]
            return row["node"] if row["state"] == "running" else ""

        agent = wait_for(running, "it runs", 60)
        self.cluster.kill(agent)
        self.cluster.restart(agent)
        answer = json.loads(self.cluster.skep("result", invocation, "--wait", "--timeout", "60s", "-o", "json",
                                              timeout=90).stdout)
        self.assertEqual((answer["state"], answer["output"], answer["crashes"]), ("done", "x", 0))
