"""A bucket that speaks as much of S3 as backups need and checks every signature itself (AWS Signature Version 4, as
docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html describes it), on a loopback port of its own.

    with Bucket("name", "key", "secret") as bucket:
        bucket.endpoint     # http://127.0.0.1:PORT
        bucket.objects      # key: bytes
        bucket.refused      # why requests were refused
"""

import hashlib
import hmac
import http.server
import threading
import urllib.parse
from xml.sax.saxutils import escape

PAGE = 2  # objects in one answer to a list, so that there are several


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _quote(text):
    return urllib.parse.quote(text, safe="-_.~")


class Refused(Exception):
    pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, body=b"", content="application/xml"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if body:
            self.send_header("Content-Type", content)
        self.end_headers()
        self.wfile.write(body)

    def _signature_check(self, body):
        bucket = self.server.bucket
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if scheme != "AWS4-HMAC-SHA256" or {"Credential", "SignedHeaders", "Signature"} - fields.keys():
            raise Refused("no signature")
        access_key, day, region, service, end = fields["Credential"].split("/")
        stamp = self.headers.get("x-amz-date", "")
        if (access_key, region, service, end) != (bucket.access_key, bucket.region, "s3", "aws4_request") or stamp[:8] != day:
            raise Refused(f"credential {fields['Credential']} at {stamp}")
        path, _, query = self.path.partition("?")
        pairs = sorted((_quote(k), _quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
        signed = fields["SignedHeaders"].split(";")
        if "host" not in signed or "x-amz-content-sha256" not in signed or "x-amz-date" not in signed:
            raise Refused(f"signed headers {signed}")
        headers = "".join(f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in signed)
        claimed = self.headers.get("x-amz-content-sha256")
        if claimed != hashlib.sha256(body).hexdigest():
            raise Refused(f"the body's digest is not {claimed}")
        canonical = "\n".join([self.command, urllib.parse.quote(urllib.parse.unquote(path), safe="/-_.~"),
                               "&".join(f"{k}={v}" for k, v in pairs), headers, fields["SignedHeaders"], claimed])
        scope = f"{day}/{region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = _hmac(_hmac(_hmac(_hmac(b"AWS4" + bucket.secret_key.encode(), day), region), "s3"), "aws4_request")
        if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), fields["Signature"]):
            raise Refused("SignatureDoesNotMatch")

    def _handle(self):
        bucket = self.server.bucket
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            self._signature_check(body)
        except (Refused, ValueError) as why:
            bucket.refused.append(str(why))
            self._answer(403, b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>")
            return
        path, _, query = self.path.partition("?")
        name, _, key = path.lstrip("/").partition("/")
        if name != bucket.name:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        with bucket.lock:
            if bucket.failing:
                self._answer(503, b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
            elif self.command == "PUT":
                bucket.objects[key] = body
                self._answer(200)
            elif self.command == "DELETE":
                bucket.objects.pop(key, None)
                self._answer(204)
            elif key == "":
                self._answer(200, self._list(dict(urllib.parse.parse_qsl(query))))
            elif key in bucket.objects:
                self._answer(200, bucket.objects[key], "application/octet-stream")
            else:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _list(self, query):
        if query.get("list-type") != "2":
            return b"<Error/>"
        keys = sorted(k for k in self.server.bucket.objects if k.startswith(query.get("prefix", "")))
        start = int(query.get("continuation-token", "&0")[1:])
        page, more = keys[start:start + PAGE], start + PAGE < len(keys)
        rows = "".join(f"<Contents><Key>{escape(k)}</Key><Size>{len(self.server.bucket.objects[k])}</Size></Contents>" for k in page)
        token = f"<NextContinuationToken>{escape(f'&{start + PAGE}')}</NextContinuationToken>" if more else ""
        return (f"<?xml version='1.0'?><ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
                "</ListBucketResult>").encode()

    do_GET = do_PUT = do_DELETE = _handle


class Bucket:
    def __init__(self, name, access_key, secret_key, region="us-east-1"):
        self.name, self.access_key, self.secret_key, self.region = name, access_key, secret_key, region
        self.objects, self.refused, self.failing = {}, [], False
        self.lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.bucket = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
