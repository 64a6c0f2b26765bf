package envoy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawRequest is a request that is sent as it stands. A client library would tidy it up, or refuse to send it.
type rawRequest struct {
	method, target, host string
	fields               [][2]string // name and value
	grpc                 bool        // send it as a gRPC call
}

// rawAnswer is what came back. Status 0 is no answer: ended says how the connection or the stream ended.
type rawAnswer struct {
	status int
	header http.Header // with the trailers
	body   string
	ended  string
}

const rawPatience = 10 * time.Second

// overHTTP1 sends a request on a new connection.
func (r rawRequest) overHTTP1(t *testing.T, addr string) rawAnswer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, rawPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(rawPatience))
	lines := []string{r.method + " " + r.target + " HTTP/1.1", "Host: " + r.host, "Connection: close"}
	for _, f := range r.fields {
		lines = append(lines, f[0]+": "+f[1])
	}
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.method})
	if err != nil {
		return rawAnswer{ended: "closes the connection"}
	}
	got := readAll(t, resp)
	return rawAnswer{status: got.StatusCode, header: got.Header, body: got.body}
}

// overHTTP2 sends a request on a new connection without TLS. The target goes into :path, and the
// host into :authority, unless it is empty.
func (r rawRequest) overHTTP2(t *testing.T, addr string) rawAnswer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, rawPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(rawPatience))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := newFramer(conn)
	if err := errors.Join(framer.WriteSettings(), r.write(framer)); err != nil {
		t.Fatal(err)
	}
	answer, err := readAnswer(framer)
	if err != nil {
		t.Fatalf("%q: %v", r.target, err)
	}
	return answer
}

func newFramer(conn net.Conn) *http2.Framer {
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = 1 << 20
	return framer
}

// write sends the request as the stream 1.
func (r rawRequest) write(framer *http2.Framer) error {
	fields := [][2]string{{":method", r.method}, {":scheme", "http"}, {":path", r.target}}
	if r.host != "" {
		fields = append(fields, [2]string{":authority", r.host})
	}
	fields = append(fields, r.fields...)
	if r.grpc {
		fields = append(fields, [2]string{"content-type", "application/grpc"}, [2]string{"te", "trailers"})
	}
	if err := writeFields(framer, 1, fields, !r.grpc); err != nil || !r.grpc {
		return err
	}
	return framer.WriteData(1, true, make([]byte, 5)) // an empty message, not compressed
}

// writeFields sends header fields, in as many frames as they need.
func writeFields(framer *http2.Framer, stream uint32, fields [][2]string, last bool) error {
	const frame = 16 << 10 // what every peer accepts
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: strings.ToLower(f[0]), Value: f[1]}); err != nil {
			return err
		}
	}
	first := block.Next(frame)
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: last, EndHeaders: block.Len() == 0})
	for err == nil && block.Len() > 0 {
		part := block.Next(frame)
		err = framer.WriteContinuation(stream, block.Len() == 0, part)
	}
	return err
}

// readAnswer reads until the stream 1 has ended.
func readAnswer(framer *http2.Framer) (rawAnswer, error) {
	answer := rawAnswer{header: make(http.Header)}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			if answer.status == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
				return rawAnswer{ended: "closes the connection"}, nil
			}
			return answer, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == ":status" {
					_, err = fmt.Sscan(field.Value, &answer.status)
				} else {
					answer.header.Add(field.Name, field.Value)
				}
			}
			if f.StreamEnded() {
				return answer, err
			}
		case *http2.DataFrame:
			answer.body += string(f.Data())
			if f.StreamEnded() {
				return answer, nil
			}
		case *http2.RSTStreamFrame:
			if answer.status != 0 { // the answer is complete, and only the rest of the request is not wanted
				return answer, nil
			}
			return rawAnswer{ended: "resets the stream"}, nil
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return rawAnswer{ended: "closes the connection"}, nil
			}
		}
		if err != nil {
			return answer, err
		}
	}
}
