package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
)

// TestAsker_Requests decodes checks and compares them with those that Envoy sends.
func TestAsker_Requests(t *testing.T) {
	people := newPopulation(20)
	tokens, err := mintTokens(people, 10)
	if err != nil {
		t.Fatal(err)
	}
	ids, ports, paths := make(map[string]bool), make(map[uint32]bool), make(map[string]bool)
	for _, one := range append(fewPaths[:len(fewPaths):len(fewPaths)], idPaths...) {
		for bearing, header := range []string{"x-api-key", "authorization"} {
			l := loadOf(people, 20).to([]target{one}).mixed(0, nil, float64(bearing), tokens)
			a, err := l.asker(seed{1, uint64(len(ids))})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 50 {
				now := time.Unix(1_700_000_000+int64(n), int64(n)*19_000_000)
				q, reason := a.next(now)
				got := decoded(t, q)
				if reason != "" || !people.knows(got.credential, tokens) {
					t.Fatalf("credential %q, and %q is expected", got.credential, reason)
				}
				before, after, hasID := strings.Cut(one.path, idMark)
				id := strings.TrimSuffix(strings.TrimPrefix(got.path, before), after)
				if hasID && (paths[got.path] || len(id) != one.shape.length || strings.Trim(id, base62+"-_") != "") {
					t.Fatalf("%s again, or not of %s", got.path, one.path)
				}
				if !got.time.Equal(now) && now.Nanosecond() >= 1<<28 {
					t.Fatalf("time %v, want %v", got.time, now)
				}
				ids[got.id], ports[got.port], paths[got.path] = true, true, true
				prefix := map[string]string{"authorization": "Bearer "}[header]
				want := checkRequest(one.method, strings.Replace(one.path, idMark, id, 1), header, prefix+got.credential)
				if !proto.Equal(got.blanked, want) {
					t.Fatalf("got %v\nwant %v", got.blanked, want)
				}
			}
		}
	}
	if len(ids) != 2100 || len(ports) < 1900 {
		t.Errorf("%d ids and %d ports in 2100 requests", len(ids), len(ports))
	}
}

// check is what differs from one check to the next.
type check struct {
	id, path, credential string
	port                 uint32
	time                 time.Time
	blanked              *authv3.CheckRequest // with placeholders for the id, the time and the source
}

func decoded(t *testing.T, q *wireRequest) check {
	t.Helper()
	var req authv3.CheckRequest
	if err := proto.Unmarshal(q.wire, &req); err != nil {
		t.Fatal(err)
	}
	at := req.GetAttributes()
	h := at.GetRequest().GetHttp()
	c := check{
		id: h.GetId(), path: h.GetPath(), port: at.GetSource().GetAddress().GetSocketAddress().GetPortValue(),
		time: at.GetRequest().GetTime().AsTime(), blanked: &req,
	}
	for _, f := range h.GetHeaderMap().GetHeaders() {
		switch f.GetKey() {
		case "x-request-id":
			f.RawValue = []byte(blankRequestID)
		case "x-api-key", "authorization":
			c.credential = strings.TrimPrefix(string(f.GetRawValue()), "Bearer ")
		}
	}
	h.Id, at.Request.Time, at.Source = blankID, blankTime, peer("198.51.100.23", blankPort)
	return c
}

// knows reports whether a credential is a caller's key or one of the tokens.
func (p *population) knows(credential string, tokens *tokenSet) bool {
	for i := range p.callers() {
		if string(p.keys.text(i)) == credential {
			return true
		}
	}
	return slices.ContainsFunc(tokens.all, func(token []byte) bool { return string(token) == credential })
}

// TestAsker_Street draws from the street: shares of denials and tokens, ids that never repeat, and callers by Zipf.
func TestAsker_Street(t *testing.T) {
	people := crowd(1000)
	tokens, err := mintTokens(people, 100)
	if err != nil {
		t.Fatal(err)
	}
	l := loads(people, tokens)["street"]
	const drawn = 40_000
	reasons, paths, byKey := make(map[string]int), make(map[string]bool), make(map[string]int)
	guarded := 0
	for turn := range uint64(2) {
		a, err := l.asker(seed{turn, 0})
		if err != nil {
			t.Fatal(err)
		}
		for range drawn / 2 {
			q, reason := a.next(time.Now())
			path, credential := rawPath(q), string(q.wire[q.credential:][:keyLen])
			paths[path] = true
			if strings.HasPrefix(path, "/v1/orders/") {
				guarded++
			}
			switch {
			case reason != "":
				reasons[reason]++
				if reason == narrow.reason && !strings.HasPrefix(path, "/v1/orders/") {
					t.Fatalf("%s should be denied for want of a scope", path)
				}
			case !strings.HasPrefix(credential, keyPrefix):
				reasons["token"]++
			default:
				byKey[credential]++
			}
		}
	}
	for reason, want := range map[string]float64{
		unknown.reason: .0125, garbage.reason: .0125, revoked.reason: .0125, narrow.reason: .0125, "token": .1,
	} {
		if got := float64(reasons[reason]) / drawn; math.Abs(got-want) > want/8 {
			t.Errorf("%s: %.4f of the checks, want %.4f", reason, got, want)
		}
	}
	if share := float64(guarded) / drawn; math.Abs(share-.5) > .02 {
		t.Errorf("%.3f of the paths are of the route, want half", share)
	}
	if again := drawn - len(paths); again > 40 { // of ids with seven digits a few come twice by chance
		t.Errorf("%d of %d paths come again", again, drawn)
	}
	followsZipf(t, people, byKey)
}

func rawPath(q *wireRequest) string {
	var req authv3.CheckRequest
	if err := proto.Unmarshal(q.wire, &req); err != nil {
		return err.Error()
	}
	return req.GetAttributes().GetRequest().GetHttp().GetPath()
}

// followsZipf compares how often callers came with a Zipf distribution: for the first, the first ten, and the first hundred.
func followsZipf(t *testing.T, people *population, byKey map[string]int) {
	t.Helper()
	weight := func(n int) (sum float64) {
		for i := range n {
			sum += math.Pow(float64(i+1), -streetSkew)
		}
		return sum
	}
	total := 0
	for _, n := range byKey {
		total += n
	}
	for _, first := range []int{1, 10, 100} {
		came := 0
		for i := range first {
			came += byKey[string(people.keys.text(i))]
		}
		got, want := float64(came)/float64(total), weight(first)/weight(people.callers())
		if math.Abs(got-want) > .02 {
			t.Errorf("the first %d of %d callers send %.3f of the checks, want %.3f", first, people.callers(), got, want)
		}
	}
}

// TestAsker_Alike draws each caller about as often as any other, and in other orders for other seeds.
func TestAsker_Alike(t *testing.T) {
	people := crowd(100)
	l := loadOf(people, 100).to(onePath).drawn(0)
	times := make([]int, 100)
	same := 0
	first, err := l.asker(seed{turn: 1})
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.asker(seed{turn: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		i, j := first.caller(), second.caller()
		times[i]++
		if i == j {
			same++
		}
	}
	if least, most := slices.Min(times), slices.Max(times); least < 140 || most > 260 {
		t.Errorf("callers come between %d and %d times, want about 200", least, most)
	}
	if same > 400 {
		t.Errorf("%d of 20,000 callers are the same for two seeds", same)
	}
}

func TestAsker_SameSeed(t *testing.T) {
	people := crowd(100)
	tokens, err := mintTokens(people, 10)
	if err != nil {
		t.Fatal(err)
	}
	l := loads(people, tokens)["street"]
	one, err := l.asker(seed{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.asker(seed{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for range 100 {
		a, _ := one.next(now)
		b, _ := other.next(now)
		if string(a.wire) != string(b.wire) {
			t.Fatal("rivals of a round get other checks")
		}
	}
}

func TestAsker_GuardedPathIsMissing(t *testing.T) {
	l := loadOf(newPopulation(10), 10).to(onePath).mixed(.5, []fault{narrow}, 0, nil)
	if _, err := l.asker(seed{}); err == nil {
		t.Error("a scope is wanted of a path that needs none")
	}
}
