package admin

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
)

// Bounds of one batch of an import.
const (
	maxImportKeys  = 10_000
	maxImportBytes = 32 << 20
)

// The forms of requests and answers that huma reads and writes.
type (
	body[T any] struct{ Body T }
	byID        struct {
		ID string `path:"id"`
	}
	withID[T any] struct {
		ID   string `path:"id"`
		Body T
	}
	page struct {
		After string `query:"after" doc:"The last id of the page before."`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}
	cause struct {
		Cause string `json:"cause,omitempty" doc:"Why, for the operator."`
	}
)

// routes registers every operation. Errors become RFC 9457 documents with the sentence of the error as detail.
func (s *Service) routes(mux *http.ServeMux, version string, log *slog.Logger) {
	cfg := huma.DefaultConfig("Tollkeeper admin API", version)
	cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", nil
	api := humago.New(mux, cfg)

	r := registrar{api: api, log: log}
	s.accountRoutes(r)
	s.keyRoutes(r)
	s.tokenRoutes(r)
	s.quotaRoutes(r)
	s.backupRoute(r)
	add(r, "GET /v1/status", "Show the server's state", func(ctx context.Context, _ struct{}) (Status, error) { return s.Status(ctx), nil })
	add(r, "GET /v1/plans", "List plans, and who is on them", func(ctx context.Context, _ struct{}) (Plans, error) { return s.PlanUses(ctx) })
	add(r, "GET /v1/doctor/ledger", "Check the data file", func(ctx context.Context, _ struct{}) (doctor.Report, error) { return s.CheckLedger(ctx) })
	add(r, "GET /v1/decisions/{id}", "Show a recent decision, by its id or by the x-request-id of the request", func(ctx context.Context, in byID) (Decision, error) {
		return s.decision(ctx, in.ID)
	})
	add(r, "POST /v1/explain", "Say how a CheckRequest, given by itself or in a Question, would be decided, and why", func(ctx context.Context, in struct{ RawBody []byte }) (Explanation, error) {
		e, err := s.Explain(ctx, questionOf(in.RawBody))
		if err != nil {
			return Explanation{}, err
		}
		return viewExplanation(&e), nil
	})
}

func (s *Service) accountRoutes(r registrar) {
	add(r, "POST /v1/accounts", "Make an account", func(ctx context.Context, in body[AccountCreate]) (Account, error) {
		return s.createAccount(ctx, in.Body)
	})
	add(r, "GET /v1/accounts", "List accounts", func(ctx context.Context, in page) ([]Account, error) {
		return s.accounts(ctx, apikey.Page{After: in.After, Limit: in.Limit})
	})
	add(r, "GET /v1/accounts/{id}", "Show an account", func(ctx context.Context, in byID) (Account, error) { return s.account(ctx, in.ID) })
	add(r, "PATCH /v1/accounts/{id}", "Change an account", func(ctx context.Context, in withID[AccountUpdate]) (Account, error) {
		return s.updateAccount(ctx, in.ID, in.Body)
	})
	add(r, "POST /v1/accounts/{id}/revoke", "Revoke all keys and tokens that an account has now", func(ctx context.Context, in withID[accountRevoke]) (Revoked, error) {
		return s.revokeAccount(ctx, in.ID, in.Body)
	})
}

func (s *Service) keyRoutes(r registrar) {
	add(r, "POST /v1/keys", "Make a key", func(ctx context.Context, in body[KeyCreate]) (Key, error) { return s.createKey(ctx, in.Body) })
	add(r, "GET /v1/keys", "List keys", func(ctx context.Context, in keyFilter) ([]Key, error) { return s.keys(ctx, &in) })
	add(r, "POST /v1/keys/import", "Import keys, all or none", func(ctx context.Context, in body[importBatch]) (ImportResult, error) {
		return s.importKeys(ctx, in.Body.Keys, in.Body.Force)
	})
	add(r, "POST /v1/keys/lookup", "Find a key by the SHA-256 of its text", func(ctx context.Context, in body[lookup]) (Key, error) {
		return s.lookup(ctx, in.Body.SHA256)
	})
	add(r, "GET /v1/keys/{id}", "Show a key", func(ctx context.Context, in byID) (Key, error) { return s.key(ctx, in.ID) })
	add(r, "PATCH /v1/keys/{id}", "Change a key", func(ctx context.Context, in withID[KeyUpdate]) (Key, error) {
		return s.updateKey(ctx, in.ID, in.Body)
	})
	add(r, "POST /v1/keys/{id}/rotate", "Replace a key by a successor", func(ctx context.Context, in withID[rotate]) (Rotation, error) {
		return s.rotateKey(ctx, in.ID, time.Duration(in.Body.OverlapSeconds)*time.Second)
	})
	add(r, "POST /v1/keys/{id}/revoke", "Revoke a key for good", func(ctx context.Context, in withID[cause]) (Revoked, error) {
		return s.revokeKey(ctx, in.ID, in.Body.Cause)
	})
}

func (s *Service) tokenRoutes(r registrar) {
	add(r, "POST /v1/tokens/inspect", "Say what is known about a bearer token", func(ctx context.Context, in body[TokenInspect]) (TokenView, error) {
		return s.inspectToken(ctx, in.Body.Token)
	})
	add(r, "POST /v1/tokens/revoke", "Revoke bearer tokens", func(ctx context.Context, in body[TokenRevoke]) (Revoked, error) {
		return s.revokeTokens(ctx, in.Body)
	})
	add(r, "GET /v1/revocations", "List what is revoked, the earliest change first", func(ctx context.Context, in struct {
		After uint64 `query:"after" doc:"The last revision of the page before."`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}) ([]Revocation, error) {
		return s.revocations(ctx, in.After, in.Limit)
	})
}

func (s *Service) quotaRoutes(r registrar) {
	add(r, "GET /v1/quota", "Show the quotas of a key, an account, or a subject of an issuer", func(ctx context.Context, in struct {
		Key     string `query:"key"`
		Account string `query:"account"`
		Plan    string `query:"plan"`
		Issuer  string `query:"issuer"`
		Subject string `query:"subject"`
		Client  string `query:"client"`
	}) ([]Quota, error) {
		return s.quotas(ctx, QuotaHolder(in))
	})
	add(r, "POST /v1/quota/credit", "Add units to a limit", func(ctx context.Context, in body[QuotaChange]) (Quota, error) {
		return s.credit(ctx, in.Body)
	})
	add(r, "POST /v1/quota/reset", "Forgive what was spent in this period", func(ctx context.Context, in body[QuotaChange]) (Quota, error) {
		return s.reset(ctx, in.Body)
	})
	add(r, "GET /v1/quota/stranded", "List the units of prepaid limits that servers held when they died", func(ctx context.Context, in struct {
		Account string `query:"account" doc:"Absent: all."`
		Limit   string `query:"limit" doc:"Absent: all that are prepaid."`
	}) ([]Stranded, error) {
		return s.stranded(ctx, in.Account, in.Limit)
	})
	add(r, "POST /v1/quota/release", "Give back what a server held when it died, or count it as spent; repeated, it changes nothing", func(ctx context.Context, in body[QuotaRelease]) (QuotaRelease, error) {
		return s.release(ctx, in.Body)
	})
}

type (
	accountRevoke struct {
		Cause        string `json:"cause,omitempty"`
		Unregistered bool   `json:"unregistered,omitempty" doc:"The account is known from tokens alone."`
	}
	importBatch struct {
		Keys  []ImportKey `json:"keys" minItems:"1" maxItems:"10000"`
		Force bool        `json:"force,omitempty" doc:"Also keys that have expired already."`
	}
	lookup struct {
		SHA256 string `json:"sha256"`
	}
	rotate struct {
		OverlapSeconds int64 `json:"overlap_seconds" minimum:"0" maximum:"31536000" doc:"How long both keys are good."`
	}
)

type registrar struct {
	api huma.API
	log *slog.Logger
}

// add registers one operation under a pattern such as "GET /v1/keys".
func add[In, Out any](r registrar, pattern, summary string, f func(context.Context, In) (Out, error)) {
	method, path := cut(pattern)
	huma.Register(r.api, huma.Operation{
		OperationID: operationID(method, path), Method: method, Path: path, Summary: summary, MaxBodyBytes: maxImportBytes,
	}, func(ctx context.Context, in *In) (*body[Out], error) {
		out, err := f(ctx, *in)
		if err != nil {
			return nil, r.fail(pattern, err)
		}
		return &body[Out]{out}, nil
	})
}

// statuses maps kinds of error to HTTP, in this one place.
var statuses = map[authz.Kind]int{
	authz.KindNotFound: http.StatusNotFound, authz.KindExists: http.StatusConflict, authz.KindConflict: http.StatusConflict,
	authz.KindInvalid: http.StatusUnprocessableEntity, authz.KindUnavailable: http.StatusServiceUnavailable,
}

// fail makes an answer of an error, and logs one that is not the caller's fault.
func (r registrar) fail(operation string, err error) error {
	kind := authz.KindOf(err)
	if kind == authz.KindUnavailable {
		r.log.Error("admin operation broke", "operation", operation, "error", err)
	}
	return huma.NewError(statuses[kind], err.Error())
}
