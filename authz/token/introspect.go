package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/singleflight"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/credential"
)

// Introspection is the configuration of the server that is asked about opaque tokens (RFC 7662).
type Introspection struct {
	URL string
	// Issuer is the name under which its tokens are revoked here. If an answer has an iss, it must be this one.
	Issuer string
	// ClientID and Secret authenticate us to the server (RFC 6749 section 2.3.1).
	ClientID, Secret string
	// Audiences, unless empty, are the audiences for us. An answer must name one of them.
	Audiences []string
	// AudienceClaim, AccountClaim, PlanClaim and Accounts are as in Issuer.
	AudienceClaim, AccountClaim, PlanClaim string
	Accounts                               []string
	// TTL is how long "active" is trusted, though never past the token's end. NegativeTTL is how long "not active" is.
	TTL, NegativeTTL time.Duration
	Timeout          time.Duration // of one call; a check may wait for less
	// MaxRefusals is roughly the most bad tokens of one peer that are sent to the server in a minute. 0: any number.
	MaxRefusals int
}

// Check returns an error if the configuration cannot be used.
func (i *Introspection) Check() error {
	if i.Issuer == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs the issuer of its tokens")
	}
	if i.ClientID == "" || i.Secret == "" {
		return authz.Errorf(authz.KindInvalid, "introspection needs a client id and its secret: servers answer only clients that they know")
	}
	if err := checkAccounts(i.Accounts, i.AccountClaim); err != nil {
		return err
	}
	return CheckURL(i.URL)
}

const (
	// maxCalls bounds the concurrent calls, and so the cost of a flood of invented tokens. Known good tokens have as many calls
	// of their own.
	maxCalls = 64
	// maxOpaque is the length of the longest opaque token.
	maxOpaque = 4096
	// After tripAfter failures in a row, no calls are made for breakFor.
	tripAfter = 5
	breakFor  = 2 * time.Second
	// maxKnown is how many good tokens are remembered, and maxRefused how many bad ones.
	maxKnown, maxRefused = cacheSize, 10_000
)

// introspector asks the server that issued a token. Requests with the same token share one call. After several failures of
// the server no calls are made for a while, and tokens are unavailable at once.
//
// A caller who invents tokens must not block the server for callers with good tokens. Therefore an answer about a token never
// counts as a failure of the server, known tokens have slots of their own, and each peer has a limit of refusals.
type introspector struct {
	Introspection
	client   *http.Client
	log      *slog.Logger
	now      func() time.Time
	spawn    func(func(context.Context))
	mayBeKey func(ctx context.Context, text string) (bool, error)
	flights  singleflight.Group
	breaker  *gobreaker.CircuitBreaker[map[string]any]
	slots    [2]chan struct{} // for calls under way: about unknown tokens, and about known ones
	known    *otter.Cache[digest, struct{}]
	refused  *otter.Cache[digest, *verified]
	peers    *peers

	mu       sync.Mutex
	warnedAt time.Time // when an unusable answer was last logged
}

type digest = [sha256.Size]byte

func newIntrospector(i Introspection, spawn func(func(context.Context)), opt Options) *introspector {
	if i.AudienceClaim == "" {
		i.AudienceClaim = "aud"
	}
	if opt.MayBeKey == nil { // fail closed: a text that may be a key must not be sent to another server
		opt.MayBeKey = func(context.Context, string) (bool, error) { return false, errors.New("the API keys are unknown") }
	}
	return &introspector{
		Introspection: i, client: opt.Client, log: opt.Log, now: opt.Now, spawn: spawn, mayBeKey: opt.MayBeKey, peers: newPeers(i.MaxRefusals),
		slots: [2]chan struct{}{make(chan struct{}, maxCalls), make(chan struct{}, maxCalls)},
		known: otter.Must(&otter.Options[digest, struct{}]{
			MaximumSize: maxKnown, ExpiryCalculator: otter.ExpiryAccessing[digest, struct{}](opt.Timing.MaxLifetime),
		}),
		refused: otter.Must(&otter.Options[digest, *verified]{
			MaximumSize: maxRefused, ExpiryCalculator: otter.ExpiryWriting[digest, *verified](max(minRemembered, i.NegativeTTL)),
		}),
		breaker: gobreaker.NewCircuitBreaker[map[string]any](gobreaker.Settings{
			Name: i.URL, Timeout: breakFor, IsSuccessful: func(err error) bool { return !isDown(err) },
			ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
			OnStateChange: func(url string, _, to gobreaker.State) { reportBreaker(opt.Log, url, to) },
		}),
	}
}

func (in *introspector) close() {
	in.known.StopAllGoroutines()
	in.refused.StopAllGoroutines()
	in.peers.close()
}

func reportBreaker(log *slog.Logger, url string, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		log.Error("introspection does not answer: its tokens are unavailable", "url", url)
	case gobreaker.StateClosed:
		log.Info("introspection answers again", "url", url)
	}
}

// introspect asks the server about a token, or joins a running call for it, and waits until the context ends. The call continues
// after that, so that the next request finds its answer in the cache.
func (v *Verifier) introspect(ctx context.Context, b *authz.Bearer, k cacheKey, now time.Time) (*verified, error) {
	in := v.introspector
	if in == nil || !isB64Token(b.Text) {
		return nil, malformed("it is not a JSON Web Token or an opaque bearer token")
	}
	if t, ok := in.refused.GetIfPresent(k.sum); ok && now.Before(t.recheck) {
		return t, nil
	}
	// API keys come in the same header, and must not be sent to a token server.
	switch key, err := in.mayBeKey(ctx, b.Text); {
	case err != nil:
		return nil, refuse(authz.TokenUnavailable, "cannot find out now whether it is an API key")
	case key:
		return nil, malformed("an API key is not a token")
	}
	_, known := in.known.GetIfPresent(k.sum)
	if !known && !in.peers.allow(b.Peer, now) {
		return nil, refuse(authz.TokenUnavailable, "too many bad tokens came from its peer")
	}
	type outcome struct {
		t   *verified
		err error
	}
	done := make(chan outcome, 1)
	mine := *b // the call may last longer than the request
	in.spawn(func(work context.Context) {
		t, err, _ := in.flights.Do(mine.Text, func() (any, error) { return v.askOnce(work, &mine, k, known, now) })
		o := outcome{err: err}
		o.t, _ = t.(*verified)
		done <- o
	})
	select {
	case o := <-done:
		return o.t, o.err
	case <-ctx.Done():
		return nil, refuse(authz.TokenUnavailable, "its server did not answer in time")
	}
}

// askOnce asks about a token and remembers the answer, good or bad. An error means that there was no answer.
func (v *Verifier) askOnce(ctx context.Context, b *authz.Bearer, k cacheKey, known bool, now time.Time) (*verified, error) {
	in := v.introspector
	if t := v.remembered(k, now); t != nil { // another call has ended meanwhile
		return t, nil
	}
	if t, ok := in.refused.GetIfPresent(k.sum); ok && now.Before(t.recheck) {
		return t, nil
	}
	answer, err := in.ask(ctx, b.Text, known)
	var said *answerError
	switch {
	case errors.As(err, &said): // the server works, and would answer the same again
		in.warnUnusable(err)
		if !said.ourFault {
			in.peers.countRefusal(b.Peer, now, said.retryAfter)
		}
		return in.refuse(k, authz.TokenUnavailable, err.Error(), now), nil
	case err != nil:
		return nil, err
	}
	t, err := v.introspected(answer, now)
	var bad *authz.TokenError
	switch {
	case errors.As(err, &bad):
		in.peers.countRefusal(b.Peer, now, 0)
		in.known.Invalidate(k.sum)
		return in.refuse(k, bad.Status, bad.Text, now), nil
	case err != nil:
		return nil, err
	}
	t.fact.Digest = credential.TokenDigest(b.Text)
	v.cache.Set(k, t)
	in.known.Set(k.sum, struct{}{})
	return t, nil
}

// refuse remembers that a token is bad. Bad tokens have a cache of their own, so that a flood of them evicts no good ones.
func (in *introspector) refuse(k cacheKey, status authz.TokenStatus, fault string, now time.Time) *verified {
	t := &verified{fact: authz.TokenFact{Status: status, Fault: fault}, recheck: now.Add(in.NegativeTTL)}
	in.refused.Set(k.sum, t)
	return t
}

// isB64Token reports whether a text can be a bearer token (RFC 6750 section 2.1, b64token).
func isB64Token(text string) bool {
	const b64token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	body := strings.TrimRight(text, "=")
	return body != "" && len(text) <= maxOpaque && strings.Trim(body, b64token) == ""
}

// introspected reads an answer (RFC 7662 section 2.2). The error says why the token is bad.
func (v *Verifier) introspected(answer map[string]any, now time.Time) (*verified, error) {
	in := v.introspector
	if answer["active"] != true {
		// It has expired, was revoked, or was never issued. The server does not say which.
		return nil, refuse(authz.TokenInactive, "its server says that it is not active")
	}
	t := &verified{fact: authz.TokenFact{Status: authz.TokenValid, Issuer: in.Issuer, Claims: answer, Scopes: scopes(answer)}}
	if err := v.times(answer, t); err != nil {
		return nil, err
	}
	if err := t.read(answer, payers{in.AccountClaim, in.PlanClaim, in.Accounts}, isAccess); err != nil {
		return nil, err
	}
	if t.fact.IssuedAt.IsZero() {
		// iat is optional. Without it, the end of the token must be known and near: revocations are not kept longer.
		if last := now.Add(v.opt.Timing.MaxLifetime + v.opt.Timing.Skew); t.until.IsZero() || t.until.After(last) {
			return nil, malformed("the answer has no exp and no iat, or the token lives longer than max_lifetime")
		}
		t.fact.ExpiresAt = time.Time{} // the server may move the end while the token is in use, so its revocation is kept for good
	}
	if iss := answer["iss"]; iss != nil && iss != in.Issuer {
		return nil, refuse(authz.TokenUntrustedIssuer, "the answer is about another issuer's token")
	}
	ours, err := addressed(answer, in.AudienceClaim, in.Audiences)
	if err != nil {
		return nil, err
	}
	if len(in.Audiences) > 0 && !ours {
		t.fact.Status = authz.TokenWrongAudience
	}
	t.recheck = now.Add(in.TTL)
	return t, nil
}

// answerError is an answer that says nothing about the token. The server works.
type answerError struct {
	text       string
	ourFault   bool          // the server refuses our credentials, which is not the peer's fault
	retryAfter time.Duration // with 429: how long the server wants no further calls
}

func (e *answerError) Error() string { return e.text }

// warnUnusable logs an unusable answer, at most once a minute, because any caller can cause one.
func (in *introspector) warnUnusable(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now := in.now(); in.warnedAt.IsZero() || now.Sub(in.warnedAt) >= time.Minute {
		in.warnedAt = now
		in.log.Warn("introspection gave an unusable answer", "error", err)
	}
}

// isDown reports whether an error means that the server is down: it is unreachable, too slow, or answers 5xx. Other answers may
// depend on the token.
func isDown(err error) bool {
	var said *answerError
	return err != nil && !errors.As(err, &said)
}

// ask makes a call, unless too many are running or the last ones failed.
func (in *introspector) ask(ctx context.Context, text string, known bool) (map[string]any, error) {
	room := in.slots[0]
	if known {
		room = in.slots[1]
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	default:
		return nil, fmt.Errorf("%d introspection calls are under way", maxCalls)
	}
	return in.breaker.Execute(func() (map[string]any, error) { return in.call(ctx, text) })
}

// call makes one call (RFC 7662 section 2.1).
func (in *introspector) call(ctx context.Context, text string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	form := url.Values{"token": {text}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, in.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(in.ClientID), url.QueryEscape(in.Secret))
	resp, err := in.client.Do(r)
	if err != nil {
		return nil, err
	}
	body, err := read(resp, in.URL)
	var status *statusError
	switch {
	case errors.As(err, &status) && status.code < 500:
		ourFault := status.code == http.StatusUnauthorized || status.code == http.StatusForbidden
		return nil, &answerError{text: err.Error(), ourFault: ourFault, retryAfter: retryAfter(resp, status.code)}
	case errors.Is(err, errDocument):
		return nil, &answerError{text: err.Error()}
	case err != nil:
		return nil, err
	}
	answer, err := decodeObject(body)
	if err != nil {
		return nil, &answerError{text: fmt.Sprintf("the answer of %s %v", in.URL, err)}
	}
	if _, ok := answer["active"].(bool); !ok {
		return nil, &answerError{text: in.URL + " did not say whether the token is active"}
	}
	return answer, nil
}

// retryAfter returns how long a server that answered 429 wants no further calls, at most a minute (RFC 6585 section 4).
func retryAfter(resp *http.Response, code int) time.Duration {
	secs, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if code != http.StatusTooManyRequests || err != nil || secs < 0 {
		return 0
	}
	return min(time.Duration(secs)*time.Second, time.Minute)
}
