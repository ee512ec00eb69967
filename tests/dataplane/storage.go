package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/go-openapi/strfmt"
	"github.com/haproxytech/client-native/v6/configuration"
	"github.com/haproxytech/client-native/v6/models"
	"github.com/haproxytech/client-native/v6/storage"
)

func (s *server) routeStorage(mux *http.ServeMux) {
	// A map is replaced by its text and a general file by an upload.
	files{
		server: s, store: s.maps, part: false,
		describe: func(file string, size *int64) any {
			return &models.Map{File: file, StorageName: filepath.Base(file), Description: "map file", Size: size}
		},
	}.route(mux, stored+"/maps")
	files{
		server: s, store: s.general, part: true,
		describe: func(file string, size *int64) any {
			return &models.GeneralFile{File: file, StorageName: filepath.Base(file), Description: "general file", Size: size}
		},
	}.route(mux, stored+"/general")

	const certs = stored + "/ssl_certificates"
	mux.HandleFunc("GET "+certs, s.listStoredCerts)
	mux.HandleFunc("POST "+certs, s.postStoredCert)
	mux.HandleFunc("GET "+certs+"/{name}", s.getStoredCert)
	mux.HandleFunc("PUT "+certs+"/{name}", s.putStoredCert)
	mux.HandleFunc("DELETE "+certs+"/{name}", s.deleteStoredCert)
}

// files is a folder of plain files behind the API.
type files struct {
	server   *server
	store    storage.Storage
	part     bool // a PUT brings a multipart upload, not text
	describe func(file string, size *int64) any
}

func (f files) route(mux *http.ServeMux, path string) {
	mux.HandleFunc("GET "+path, f.list)
	mux.HandleFunc("POST "+path, f.post)
	mux.HandleFunc("GET "+path+"/{name}", f.get)
	mux.HandleFunc("PUT "+path+"/{name}", f.put)
	mux.HandleFunc("DELETE "+path+"/{name}", f.delete)
}

func (f files) list(w http.ResponseWriter, _ *http.Request) {
	names, err := f.store.GetAll()
	if err != nil {
		fail(w, err)
		return
	}
	list := []any{}
	for _, name := range names {
		list = append(list, f.describe(name, nil))
	}
	reply(w, http.StatusOK, list)
}

func (f files) get(w http.ResponseWriter, r *http.Request) {
	text, err := f.store.GetRawContents(r.PathValue("name"))
	if err != nil {
		fail(w, err)
		return
	}
	defer text.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, text)
}

func (f files) post(w http.ResponseWriter, r *http.Request) {
	name, text, ok := upload(w, r)
	if !ok {
		return
	}
	file, size, err := f.store.Create(name, io.NopCloser(strings.NewReader(text)))
	if err != nil {
		failRuntime(w, err)
		return
	}
	reply(w, http.StatusCreated, f.describe(file, &size))
}

func (f files) put(w http.ResponseWriter, r *http.Request) {
	var text string
	var ok bool
	if f.part {
		_, text, ok = upload(w, r)
	} else {
		text, ok = plain(w, r)
	}
	if !ok {
		return
	}
	if _, err := f.store.Replace(r.PathValue("name"), text); err != nil {
		fail(w, err)
		return
	}
	q := queryOf(r)
	if q.skipReload {
		reply(w, http.StatusNoContent, nil)
		return
	}
	f.server.settle(w, q.force, http.StatusNoContent, nil)
}

func (f files) delete(w http.ResponseWriter, r *http.Request) {
	if err := f.server.deleteStored(f.store, r.PathValue("name")); err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusNoContent, nil)
}

// deleteStored refuses a file whose path the configuration names.
func (s *server) deleteStored(store storage.Storage, name string) error {
	file, _, err := store.Get(name)
	if err != nil {
		return err
	}
	return s.withConfig(func(c configuration.Configuration) error {
		for text := range strings.Lines(c.Parser().String()) {
			text = strings.TrimSpace(text)
			if !strings.HasPrefix(text, "#") && strings.Contains(text, file) {
				return statusError{http.StatusConflict, fmt.Sprintf("%s is in use: %s", file, text)}
			}
		}
		return store.Delete(name)
	})
}

// upload reads the part file_upload of a multipart body.
func upload(w http.ResponseWriter, r *http.Request) (name, text string, ok bool) {
	if !wants(w, r, "multipart/form-data") {
		return "", "", false
	}
	part, header, err := r.FormFile("file_upload")
	if err != nil {
		fail(w, badRequest("file_upload: "+err.Error()))
		return "", "", false
	}
	defer part.Close()
	body, err := io.ReadAll(part)
	if err != nil {
		fail(w, err)
		return "", "", false
	}
	return header.Filename, string(body), true
}

// plain reads a text/plain body.
func plain(w http.ResponseWriter, r *http.Request) (string, bool) {
	if !wants(w, r, "text/plain") {
		return "", false
	}
	body, err := io.ReadAll(r.Body)
	if err == nil && len(body) == 0 {
		err = badRequest("the body is empty")
	}
	if err != nil {
		fail(w, err)
		return "", false
	}
	return string(body), true
}

func (s *server) listStoredCerts(w http.ResponseWriter, _ *http.Request) {
	names, err := s.certs.GetAll()
	if err != nil {
		fail(w, err)
		return
	}
	list := models.SslCertificates{}
	for _, file := range names {
		list = append(list, &models.SslCertificate{File: file, StorageName: filepath.Base(file)})
	}
	reply(w, http.StatusOK, list)
}

func (s *server) describeCert(name string) (*models.SslCertificate, error) {
	file, size, err := s.certs.Get(name)
	if err != nil {
		return nil, err
	}
	info, err := s.certs.GetCertificatesInfo(name)
	if err != nil {
		return nil, err
	}
	return &models.SslCertificate{
		File: file, StorageName: filepath.Base(file), Size: &size,
		NotBefore: (*strfmt.DateTime)(info.NotBefore), NotAfter: (*strfmt.DateTime)(info.NotAfter),
		Issuers: info.Issuers, Domains: info.DNS, IPAddresses: info.IPs, Subject: info.Subject, Serial: info.Serial,
	}, nil
}

func (s *server) getStoredCert(w http.ResponseWriter, r *http.Request) {
	cert, err := s.describeCert(r.PathValue("name"))
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, cert)
}

func (s *server) postStoredCert(w http.ResponseWriter, r *http.Request) {
	name, text, ok := upload(w, r)
	if !ok {
		return
	}
	file, _, err := s.certs.Create(name, io.NopCloser(strings.NewReader(text)))
	if err != nil {
		fail(w, err)
		return
	}
	s.settleCert(w, r, http.StatusCreated, filepath.Base(file), func() error {
		if err := s.runtime.NewCertEntry(file); err != nil {
			return err
		}
		return s.setCert(file, text)
	})
}

func (s *server) putStoredCert(w http.ResponseWriter, r *http.Request) {
	text, ok := plain(w, r)
	if !ok {
		return
	}
	file, err := s.certs.Replace(r.PathValue("name"), text)
	if err != nil {
		fail(w, err)
		return
	}
	s.settleCert(w, r, http.StatusOK, filepath.Base(file), func() error { return s.setCert(file, text) })
}

func (s *server) deleteStoredCert(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := s.deleteStored(s.certs, name); err != nil {
		fail(w, err)
		return
	}
	s.settleCert(w, r, http.StatusNoContent, "", func() error { return s.runtime.DeleteCertEntry(name) })
}

// settleCert answers a change of a stored certificate. Unless the caller asks
// otherwise the change is tried at runtime, and HAProxy reloads if that fails.
func (s *server) settleCert(w http.ResponseWriter, r *http.Request, done int, name string, push func() error) {
	var body any
	if name != "" {
		cert, err := s.describeCert(name)
		if err != nil {
			fail(w, err)
			return
		}
		body = cert
	}
	q := queryOf(r)
	if q.skipReload || (!q.force && push() == nil) {
		reply(w, done, body)
		return
	}
	s.settle(w, q.force, done, body)
}
