package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// backupStall is how long a caller may take to read the next part of a backup. While a backup is read, the data file grows.
const backupStall = time.Minute

// backupRoute serves a backup as a stream. A stream that breaks off has no checksum at its end.
func (s *Service) backupRoute(r registrar) {
	const pattern = "GET /v1/backup"
	method, path := cut(pattern)
	huma.Register(r.api, huma.Operation{
		OperationID: operationID(method, path), Method: method, Path: path, Summary: "Make a backup of the data file",
		Responses: map[string]*huma.Response{"200": {Description: "The backup", Content: map[string]*huma.MediaType{"application/octet-stream": {}}}},
	}, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		backup, err := s.Backup()
		if err != nil {
			return nil, r.fail(pattern, err)
		}
		return &huma.StreamResponse{Body: func(h huma.Context) { stream(h, pattern, backup, r.log) }}, nil
	})
}

// stream writes a backup. If it fails, the connection is closed, so that the caller does not take what it has for the whole.
func stream(h huma.Context, operation string, backup func(context.Context, io.Writer) error, log *slog.Logger) {
	h.SetHeader("Content-Type", "application/octet-stream")
	_, w := humago.Unwrap(h)
	if err := backup(h.Context(), &patient{w, http.NewResponseController(w)}); err != nil {
		log.Error("admin operation broke", "operation", operation, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// patient is a writer that waits for its reader for backupStall at the most.
type patient struct {
	w       io.Writer
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(backupStall)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}
