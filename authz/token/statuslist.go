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

// A Token Status List (draft-ietf-oauth-status-list) is a compressed array with a small number for each token of an issuer:
// 0 is valid.

const (
	// maxStatusLists is how many lists of one issuer are kept. Expired ones make room for others.
	maxStatusLists = 1000
	// maxInflated is the most bytes of an array: 128 million tokens of one bit.
	maxInflated = 16 << 20
	// A list is trusted for its ttl, within these bounds, and for defaultListTTL if it has none.
	defaultListTTL, minListTTL, maxListTTL = 5 * time.Minute, 5 * time.Second, time.Hour
)

// statusRef is the place of a token in a list.
type statusRef struct {
	issuer *issuer
	uri    string
	index  int64
}

// statusOf reads the status claim of a token (section 6); nil if it has none. A status_list that cannot be used is an error,
// because the token may be revoked.
func statusOf(is *issuer, claims map[string]any) (*statusRef, error) {
	status, _ := claims["status"].(map[string]any)
	member := status["status_list"]
	if member == nil {
		return nil, nil // no status, another mechanism, or a claim of the application
	}
	list, _ := member.(map[string]any)
	uri, _ := list["uri"].(string)
	n, _ := list["idx"].(json.Number)
	index, err := n.Int64()
	switch {
	case err != nil || index < 0 || uri == "":
		return nil, malformed("status_list has no idx or no uri")
	case is.keys == nil:
		return nil, refuse(authz.TokenUnavailable, "it has a status list, and the keys of its issuer are not configured")
	case !is.mayKeepListAt(uri):
		return nil, refuse(authz.TokenUnavailable, "the status list %.256q is not at the issuer's host or under status_lists", uri)
	}
	return &statusRef{issuer: is, uri: uri, index: index}, nil
}

// mayKeepListAt reports whether the issuer may keep a status list at that URL: on its own host, or under a configured prefix.
func (is *issuer) mayKeepListAt(uri string) bool {
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

// statusList is a fetched list. It is immutable.
type statusList struct {
	bits   int // of one status: 1, 2, 4 or 8
	values []byte
	until  time.Time // when it expires
	renew  time.Time // when it is fetched again, before it expires
}

// at returns the status with that index, and false if the list is too short. Statuses fill each byte from its lowest bit
// (section 4).
func (l *statusList) at(index int64) (byte, bool) {
	per := int64(8 / l.bits)
	if i := index / per; i < int64(len(l.values)) {
		return l.values[i] >> (index % per * int64(l.bits)) & (1<<l.bits - 1), true
	}
	return 0, false
}

// statusLists are the lists that tokens named.
type statusLists struct {
	spawn func(func(context.Context))
	opt   Options

	mu    sync.RWMutex
	lists map[*issuer]map[string]*watchedList // by URL; per issuer, because an issuer must sign its own list
}

// watchedList is one list, kept up to date.
type watchedList struct {
	list atomic.Pointer[statusList]

	mu     sync.Mutex
	flight chan struct{} // closed when the running fetch ends; nil: no fetch is running
	failed time.Time     // when a fetch last failed
}

func newStatusLists(spawn func(func(context.Context)), opt Options) *statusLists {
	return &statusLists{spawn: spawn, opt: opt, lists: make(map[*issuer]map[string]*watchedList)}
}

// state returns the status of a token by its list. It waits for a list that is missing or expired, as long as the context
// allows. A list that expires soon is fetched again in the background.
func (s *statusLists) state(ctx context.Context, ref *statusRef, now time.Time) authz.TokenStatus {
	w := s.watched(ref, now)
	if w == nil {
		return authz.TokenUnavailable
	}
	l := w.list.Load()
	if l == nil || !now.Before(l.until) {
		select {
		case <-s.startFetch(w, ref, now):
		case <-ctx.Done():
		}
		if l = w.list.Load(); l == nil || !now.Before(l.until) {
			return authz.TokenUnavailable
		}
	} else if !now.Before(l.renew) {
		s.startFetch(w, ref, now)
	}
	status, ok := l.at(ref.index)
	switch {
	case !ok: // section 8.3: an index out of bounds is rejected
		return authz.TokenRevoked
	case status == 0:
		return authz.TokenValid
	}
	return authz.TokenRevoked // invalid, suspended, or specific to the application
}

// watched finds a list or adds it. It returns nil if the issuer has too many.
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

// idle reports whether the entry may be dropped: it has no valid list, and no fetch is running.
func (w *watchedList) idle(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.list.Load()
	return w.flight == nil && (l == nil || !now.Before(l.until))
}

// startFetch starts a fetch, unless one is running or has just failed. It returns a channel that is closed when the fetch ends.
func (s *statusLists) startFetch(w *watchedList, ref *statusRef, now time.Time) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flight != nil {
		return w.flight
	}
	done := make(chan struct{})
	if now.Sub(w.failed) < s.opt.Timing.MissInterval {
		close(done)
		return done
	}
	w.flight = done
	s.spawn(func(ctx context.Context) {
		list, err := s.fetch(ctx, ref)
		if err != nil {
			s.opt.Log.Error("cannot fetch a status list", "uri", ref.uri, "error", err)
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

// fetch fetches a list and verifies it (section 8.3): the token's own issuer must have signed it, for the URL that it came
// from.
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
		return nil, errors.New("its typ, sub or iss does not belong to the status list: is that the right address?")
	}
	if _, err := ref.issuer.signature(ctx, p); err != nil {
		return nil, err
	}
	return readStatusList(p.claims, s.opt.Now(), s.opt.Timing.Skew)
}

// readStatusList reads the claims of a list.
func readStatusList(claims map[string]any, now time.Time, skew time.Duration) (*statusList, error) {
	iat, err := timeClaim(claims, "iat")
	if err != nil || iat.IsZero() || iat.After(now.Add(skew)) {
		return nil, errors.New("iat is missing or in the future")
	}
	exp, err := timeClaim(claims, "exp")
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
	out.values, err = inflate(packed)
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

// inflate decompresses a status array (RFC 1950) of at most maxInflated bytes.
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
