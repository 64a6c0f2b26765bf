package envoy

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// everywhere makes a key that is good at both Tollkeepers, which have stores of their own.
func (e *edge) everywhere(plan string) string {
	e.t.Helper()
	text, err := json.Marshal(map[string]string{"key": "key-at-both-of-them", "account": "acme", "plan": plan})
	if err != nil {
		e.t.Fatal(err)
	}
	file := filepath.Join(e.t.TempDir(), "keys.jsonl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		e.t.Fatal(err)
	}
	for _, tk := range []*harness.Tollkeeper{e.tk, e.other} {
		if _, err := tk.CLI(e.t.Context(), "key", "import", file); err != nil {
			e.t.Fatal(err)
		}
	}
	return "key-at-both-of-them"
}

// healthy returns how many Tollkeepers Envoy thinks well of.
func (s *stack) healthy() int64 {
	s.t.Helper()
	stats, err := s.proxy.Stats(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return stats["cluster.tollkeeper.membership_healthy"]
}

// TestRestart_LosesNoRequest restarts two Tollkeepers in turn while requests come all the time. None fails: with a delay Envoy has
// stopped asking the one that leaves before it goes, and without one it asks the other.
func TestRestart_LosesNoRequest(t *testing.T) {
	for name, delay := range map[string]time.Duration{"with a delay": 2500 * time.Millisecond, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			for round := 1; ; round++ {
				e := newEdge(t, edgeOptions{two: true, tollkeeper: harness.TollkeeperOptions{Delay: delay}})
				if statuses := e.restartBoth(delay > 0); !e.tooBusy(statuses, round) {
					e.wantEachChargedOnce(int64(statuses[http.StatusOK]))
					return
				}
			}
		})
	}
}

// restartBoth restarts both Tollkeepers under load, and returns how many answers had each status.
func (e *edge) restartBoth(delayed bool) map[int]int {
	e.t.Helper()
	key := e.everywhere("large")
	await(e.t, func() bool { return e.healthy() == 2 })
	load := e.underLoad(4, key)
	more := func() {
		mark := load.answered(http.StatusOK)
		await(e.t, func() bool { return load.answered(http.StatusOK) > mark+100 })
	}
	for _, tk := range []*harness.Tollkeeper{e.tk, e.other} {
		more()
		stopped := make(chan error, 1)
		go func() { stopped <- tk.Stop() }()
		if delayed {
			await(e.t, func() bool { return e.healthy() == 1 })
			select {
			case err := <-stopped:
				e.t.Errorf("it ended before Envoy heard that it leaves: %v", err)
			default:
			}
		}
		if err := <-stopped; err != nil {
			e.t.Error(err)
		}
		more()
		tk.SetDelay(0) // for the end of the test
		if err := tk.Start(e.t.Context()); err != nil {
			e.t.Fatal(err)
		}
		await(e.t, func() bool { return e.healthy() == 2 })
	}
	return load.stop()
}

// tooBusy checks that all requests of a round got through. It returns true if the round is to be repeated: where the machine
// is so busy that Tollkeeper gets no turn in 0.3 s, Envoy gives up waiting.
func (s *stack) tooBusy(statuses map[int]int, round int) bool {
	s.t.Helper()
	stats, err := s.proxy.Stats(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	waited, refused := stats["cluster.tollkeeper.upstream_rq_timeout"], int64(statuses[http.StatusServiceUnavailable])
	if round < 3 && refused > 0 && refused <= waited && len(statuses) == 2 {
		s.t.Logf("round %d: too busy to answer all: %v", round, statuses)
		return true
	}
	if len(statuses) != 1 || statuses[http.StatusOK] < 100 {
		s.t.Errorf("answers by status: %v; Envoy gave up waiting %d times", statuses, waited)
	}
	return false
}

// wantEachChargedOnce checks that both Tollkeepers together charged what was allowed, and left nothing behind.
func (e *edge) wantEachChargedOnce(allowed int64) {
	e.t.Helper()
	var spent int64
	first := e.tk
	for _, e.tk = range []*harness.Tollkeeper{first, e.other} {
		// A stop in good order gives back what is in hand, and writes what was spent.
		if err := e.tk.Stop(); err != nil {
			e.t.Fatal(err)
		}
		if err := e.tk.Start(e.t.Context()); err != nil {
			e.t.Fatal(err)
		}
		b := e.balance("acme", "monthly")
		if spent += b.Spent; b.Stranded != 0 || len(b.Outstanding) != 0 {
			e.t.Errorf("left behind: %+v", b)
		}
	}
	e.tk = first
	if spent != allowed {
		e.t.Errorf("%d requests were allowed and %d charged", allowed, spent)
	}
}

// TestFailover_FromADeadTollkeeper holds that a Tollkeeper that cannot be reached costs nobody his answer, before Envoy knows of it too:
// nothing but the retries is left to help.
func TestFailover_FromADeadTollkeeper(t *testing.T) {
	e := newEdge(t, edgeOptions{two: true, change: func(config string) string {
		before, rest, _ := strings.Cut(config, "    health_checks:\n")
		_, after, _ := strings.Cut(rest, "    load_assignment:\n")
		return before + "    load_assignment:\n" + after
	}})
	key := e.everywhere("large")
	e.other.Kill()
	for i := range 200 {
		if r := e.get("/", key); r.StatusCode != http.StatusOK {
			t.Fatalf("request %d: %d %s", i, r.StatusCode, r.body)
		}
	}
	stats, err := e.proxy.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := stats["cluster.tollkeeper.upstream_rq_retry_success"]; n == 0 {
		t.Error("the one that is gone was never asked")
	}
}

// A Tollkeeper that hangs costs those that it was asked about their answer. After three that it kept waiting Envoy asks the
// other one only, and does not wait for the health check to say so.
func TestFailover_FromAHangingTollkeeper(t *testing.T) {
	e := newEdge(t, edgeOptions{two: true})
	key := e.everywhere("large")
	await(t, func() bool { return e.healthy() == 2 })
	for range 20 { // so that there are connections to both
		e.get("/", key)
	}
	if err := e.other.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.other.Signal(syscall.SIGCONT) }()
	failed := 0
	for range 50 {
		switch r := e.get("/", key); r.StatusCode {
		case http.StatusOK:
		case http.StatusServiceUnavailable:
			failed++
		default:
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	if failed > 6 {
		t.Errorf("%d of 50 waited in vain", failed)
	}
}

// faults is a way between Envoy and Tollkeeper on which the first check of a connection can be lost.
type faults struct {
	lose atomic.Int32 // how many connections are lost
	how  func(client *net.TCPConn, first *http2.MetaHeadersFrame)
	lost atomic.Int32
}

// withFaults is a stack with such a way.
func withFaults(t *testing.T, how func(*net.TCPConn, *http2.MetaHeadersFrame)) (*stack, *faults) {
	t.Helper()
	f := &faults{how: how}
	s := &stack{t: t, http: httpClient(t, false), Upstream: startUpstream(t)}
	s.tk = startTollkeeper(t, harness.TollkeeperOptions{Policies: ownPolicies(t)})
	at := relay(t, func(c net.Conn) { f.serve(c.(*net.TCPConn), s.tk.Address()) })
	addr, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s.proxy = startProxy(t, addr.Port, s.Port(), nil)
	s.addr = s.proxy.Addr()
	return s, f
}

// serve reads up to the first request of a connection, which decides what becomes of it: Envoy needs no answer until then.
func (f *faults) serve(client *net.TCPConn, server string) {
	var read bytes.Buffer
	from := io.TeeReader(client, &read)
	if _, err := io.ReadFull(from, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	frames := http2.NewFramer(io.Discard, from)
	frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			return
		}
		headers, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		if strings.HasSuffix(headers.PseudoValue("path"), "/Check") && !strings.Contains(headers.PseudoValue("path"), "Health") && f.lose.Add(-1) >= 0 {
			f.lost.Add(1)
			f.how(client, headers)
			return
		}
		break
	}
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	if _, err := up.Write(read.Bytes()); err == nil {
		splice(client, up)
	}
}

// TestRetry_RepeatsARefusedCheck loses a check on a connection that closes, as in a restart: the other end says that
// it took no request any more. The client notices nothing, and pays once.
func TestRetry_RepeatsARefusedCheck(t *testing.T) {
	s, f := withFaults(t, func(c *net.TCPConn, _ *http2.MetaHeadersFrame) {
		out := http2.NewFramer(c, nil)
		_ = out.WriteSettings()
		_ = out.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	key := s.customer("acme", "hundred")
	f.lose.Store(1)
	r := s.get("/", key.Text)
	if limit := r.Header.Get("Ratelimit"); r.StatusCode != http.StatusOK || !strings.Contains(limit, "r=99") || f.lost.Load() != 1 {
		t.Errorf("%d, ratelimit %q, %d lost", r.StatusCode, limit, f.lost.Load())
	}
	if n := s.Count(); n != 1 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestRetry_NeverRepeatsALostCheck loses one without a word: it may have been charged. That is no answer, and
// no answer is a no.
func TestRetry_NeverRepeatsALostCheck(t *testing.T) {
	s, f := withFaults(t, func(c *net.TCPConn, _ *http2.MetaHeadersFrame) { _ = c.SetLinger(0) })
	key := s.customer("acme", "hundred")
	f.lose.Store(1)
	if r := s.get("/", key.Text); r.StatusCode != http.StatusServiceUnavailable || s.Count() != 0 || f.lost.Load() != 1 {
		t.Errorf("%d, %d forwarded, %d lost", r.StatusCode, s.Count(), f.lost.Load())
	}
	if r := s.get("/", key.Text); r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Ratelimit"), "r=99") {
		t.Errorf("the next one: %d, ratelimit %q", r.StatusCode, r.Header.Get("Ratelimit"))
	}
}

// TestDisconnect_ChargesWhatWasServed close their connection at once. Nobody else suffers, and nothing that reached the upstream is free.
func TestDisconnect_ChargesWhatWasServed(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	const gone = 200
	for i := range gone {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge.test\r\nx-api-key: "+key.Text+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset, where others close
		}
		_ = c.Close()
	}
	if r := s.get("/", key.Text); r.StatusCode != http.StatusOK {
		t.Errorf("a client that waits: %d", r.StatusCode)
	}
	if err := s.tk.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.tk.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := s.balance("acme", "monthly")
	if served := int64(s.Count()); b.Spent < served || b.Spent > gone+1 || b.Stranded != 0 || len(b.Outstanding) != 0 {
		t.Errorf("%d of %d requests were served, and charged: %+v", served, gone+1, b)
	}
}
