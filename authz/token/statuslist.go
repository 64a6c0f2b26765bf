package token

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// A Token Status List (draft-ietf-oauth-status-list) is a long row of small numbers, one for each token of an issuer,
// which says what became of them.

const (
	// maxStatusLists is how many lists of one issuer are kept. Those that have lapsed make room for others.
	maxStatusLists = 1000
	// maxInflated is the longest row, in bytes: 128 million tokens of one bit.
	maxInflated = 16 << 20
	// A list is believed for the time that it says, within these bounds, and for the first where it says nothing.
	defaultListTTL, minListTTL, maxListTTL = 5 * time.Minute, 5 * time.Second, time.Hour
)

// statusRef is a token's place in a list.
type statusRef struct {
	issuer *issuer
	uri    string
	index  int64
}

// statusOf reads the status claim of a token (section 6), nil if it has none. A token that says that it may have been
// revoked, in a way that is not understood, is not one to accept.
func statusOf(is *issuer, claims map[string]any) (*statusRef, error) {
	status, _ := claims["status"].(map[string]any)
	member := status["status_list"]
	if member == nil {
		return nil, nil // none, another mechanism, or a claim of the application's own
	}
	list, _ := member.(map[string]any)
	uri, _ := list["uri"].(string)
	n, _ := list["idx"].(json.Number)
	index, err := n.Int64()
	switch {
	case err != nil || index < 0 || uri == "":
		return nil, malformed("status_list has no idx or no uri")
	case is.keys == nil:
		return nil, refuse(authz.TokenUnavailable, "the keys that sign status lists are not configured here")
	case !is.listAt(uri):
		return nil, refuse(authz.TokenUnavailable, "the status list %.256q is not at an address that is configured", uri)
	}
	return &statusRef{issuer: is, uri: uri, index: index}, nil
}

// listAt reports whether the issuer may keep a status list at that address: at its own host, or where it is configured.
func (is *issuer) listAt(uri string) bool {
	if CheckURL(uri) != nil {
		return false
	}
	at, err := url.Parse(uri)
	home, err2 := url.Parse(is.Name)
	if err == nil && err2 == nil && home.Host != "" && at.Scheme == home.Scheme && at.Host == home.Host {
		return true
	}
	for _, prefix := range is.StatusLists {
		if strings.HasPrefix(uri, prefix) {
			return true
		}
	}
	return false
}

// statusList is one list as it was fetched. It is never changed.
type statusList struct {
	bits  int
	row   []byte
	until time.Time // from then on it says nothing any more
	renew time.Time // from then on it is fetched anew while it is still good
}

// at is the status with that index: bits are counted from the lowest of each byte (section 4).
func (l *statusList) at(index int64) (byte, bool) {
	per := int64(8 / l.bits)
	if i := index / per; i < int64(len(l.row)) {
		return l.row[i] >> (index % per * int64(l.bits)) & (1<<l.bits - 1), true
	}
	return 0, false
}

// statusLists keeps the lists that tokens have named.
type statusLists struct {
	spawn func(func(context.Context))
	opt   Options

	mu    sync.RWMutex
	lists map[*issuer]map[string]*watchedList // by their addresses: what one issuer says of another's list does not count
}

// watchedList is one list and its fetching.
type watchedList struct {
	list   atomic.Pointer[statusList]
	mu     sync.Mutex
	flight chan struct{}
	failed time.Time // when a fetch last failed
}

func newStatusLists(spawn func(func(context.Context)), opt Options) *statusLists {
	return &statusLists{spawn: spawn, opt: opt, lists: make(map[*issuer]map[string]*watchedList)}
}

// state is what a token's list says of it. A list that is not there yet is waited for as long as the context allows; one
// that is about to lapse is fetched while it is still good.
func (s *statusLists) state(ctx context.Context, ref *statusRef, now time.Time) authz.TokenStatus {
	w := s.watched(ref, now)
	if w == nil {
		return authz.TokenUnavailable
	}
	l := w.list.Load()
	if l == nil || !now.Before(l.until) {
		select {
		case <-s.fetching(w, ref, now):
		case <-ctx.Done():
		}
		if l = w.list.Load(); l == nil || !now.Before(l.until) {
			return authz.TokenUnavailable
		}
	} else if !now.Before(l.renew) {
		s.fetching(w, ref, now)
	}
	status, ok := l.at(ref.index)
	switch {
	case !ok: // section 8.3: out of bounds is a reason to reject
		return authz.TokenRevoked
	case status == 0:
		return authz.TokenValid
	}
	return authz.TokenRevoked // invalid, suspended, or something that only the application would know
}

// watched finds a list, or makes room for it.
func (s *statusLists) watched(ref *statusRef, now time.Time) *watchedList {
	s.mu.RLock()
	w := s.lists[ref.issuer][ref.uri]
	s.mu.RUnlock()
	if w != nil {
		return w
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lists := s.lists[ref.issuer]
	if w = lists[ref.uri]; w != nil {
		return w
	}
	if lists == nil {
		lists = make(map[string]*watchedList)
		s.lists[ref.issuer] = lists
	}
	if len(lists) >= maxStatusLists {
		maps.DeleteFunc(lists, func(_ string, w *watchedList) bool { return w.idle(now) })
	}
	if len(lists) >= maxStatusLists {
		return nil
	}
	w = &watchedList{}
	lists[ref.uri] = w
	return w
}

// idle reports whether nothing would be lost with it: it has no list that is still good, and none is being fetched.
func (w *watchedList) idle(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.list.Load()
	return w.flight == nil && (l == nil || !now.Before(l.until))
}

var alreadyOver = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// fetching has the list fetched, unless that is under way or has just failed, and returns what is closed at its end.
func (s *statusLists) fetching(w *watchedList, ref *statusRef, now time.Time) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flight != nil {
		return w.flight
	}
	if now.Sub(w.failed) < s.opt.Timing.MissInterval {
		return alreadyOver
	}
	done := make(chan struct{})
	w.flight = done
	s.spawn(func(ctx context.Context) {
		list, err := s.fetch(ctx, ref)
		if err != nil {
			s.opt.Log.Error("status list cannot be had", "uri", ref.uri, "error", err)
		} else {
			w.list.Store(list)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.flight = nil; err != nil {
			w.failed = s.opt.Now()
		}
		close(done)
	})
	return done
}

// fetch gets a list and verifies it (section 8.3): it has to be signed by the token's own issuer and to be about the
// address that it came from.
func (s *statusLists) fetch(ctx context.Context, ref *statusRef) (*statusList, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	raw, _, err := fetch(ctx, s.opt.Client, ref.uri, "application/statuslist+jwt")
	if err != nil {
		return nil, err
	}
	p, err := parse(string(bytes.TrimSpace(raw)), maxFetch)
	if err != nil {
		return nil, err
	}
	if iss := p.claims["iss"]; p.typ != "statuslist+jwt" || p.claims["sub"] != ref.uri || iss != nil && iss != ref.issuer.Name {
		return nil, errors.New("it is not this status list: its typ, sub or iss is another")
	}
	if _, err := ref.issuer.signature(ctx, p); err != nil {
		return nil, err
	}
	return readStatusList(p.claims, s.opt.Now(), s.opt.Timing.Skew)
}

// readStatusList reads the claims of a list.
func readStatusList(claims map[string]any, now time.Time, skew time.Duration) (*statusList, error) {
	iat, err := instant(claims, "iat")
	if err != nil || iat.IsZero() || iat.After(now.Add(skew)) {
		return nil, errors.New("iat is missing or in the future")
	}
	exp, err := instant(claims, "exp")
	if err != nil {
		return nil, err
	}
	ttl, err := ttlOf(claims)
	if err != nil {
		return nil, err
	}
	out := &statusList{until: now.Add(ttl), renew: now.Add(ttl / 2)}
	if !exp.IsZero() {
		if !exp.After(now) {
			return nil, errors.New("the list has expired")
		}
		if exp.Before(out.until) {
			out.until = exp
		}
	}
	list, _ := claims["status_list"].(map[string]any)
	bits, _ := list["bits"].(json.Number)
	n, _ := bits.Int64()
	if n != 1 && n != 2 && n != 4 && n != 8 {
		return nil, errors.New("bits is not 1, 2, 4 or 8")
	}
	packed, _ := list["lst"].(string)
	out.bits = int(n)
	out.row, err = inflate(packed)
	return out, err
}

func ttlOf(claims map[string]any) (time.Duration, error) {
	v := claims["ttl"]
	if v == nil {
		return defaultListTTL, nil
	}
	n, _ := v.(json.Number)
	secs, err := n.Float64()
	if err != nil || secs <= 0 {
		return 0, errors.New("ttl is not a number of seconds")
	}
	return min(maxListTTL, max(minListTTL, time.Duration(min(secs, maxListTTL.Seconds())*float64(time.Second)))), nil
}

// inflate unpacks a row (RFC 1950), and stops where it gets longer than any row has to be.
func inflate(packed string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.DecodeString(packed)
	if err != nil || len(raw) == 0 {
		return nil, errors.New("lst is not base64url")
	}
	z, err := zlib.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("lst: %w", err)
	}
	row, err := io.ReadAll(io.LimitReader(z, maxInflated+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("lst: %w", err)
	case len(row) > maxInflated:
		return nil, fmt.Errorf("lst inflates to more than %d bytes", maxInflated)
	}
	return row, nil
}
