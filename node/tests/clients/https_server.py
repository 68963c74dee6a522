"""A web server with a certificate of an authority of its own, and keys that sign tokens for it."""

import base64
import contextlib
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import NameOID


def pem_of(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def certificate(subject, key, issuer, issuer_key, extension):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(minutes=5))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(extension, critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Server:
    """Answers as `answer(method, path, headers, body)` says: a status and what becomes JSON, or None for nothing."""

    def __init__(self, directory, answer):
        authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.ca_pem = certificate("ca", authority, "ca", authority, x509.BasicConstraints(True, None)).decode()
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        chain, private = directory / "chain.pem", directory / "key.pem"
        chain.write_bytes(certificate("server", own, "ca", authority, here))
        private.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.answer, self.asked = answer, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                server.asked.append((self.command, self.path, dict(self.headers), body))
                status, said = server.answer(self.command, self.path, dict(self.headers), body)
                text = (said if isinstance(said, str) else json.dumps(said)).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

            do_GET = do_POST = serve

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, private)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """A key of an algorithm, and the tokens it signs."""

    CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}

    def __init__(self, alg="RS256"):
        self.alg = alg
        if alg in self.CURVES:
            self.key = ec.generate_private_key(self.CURVES[alg]())
        else:
            self.key = rsa.generate_private_key(65537, 2048)
        self.pem = pem_of(self.key)

    def signature(self, data):
        digest = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}[self.alg[2:]]()
        if self.alg.startswith("RS"):
            return self.key.sign(data, padding.PKCS1v15(), digest)
        if self.alg.startswith("PS"):
            return self.key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        length = (self.key.curve.key_size + 7) // 8
        return b"".join(
            number.to_bytes(length, "big")
            for number in utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
        )

    def token(self, claims, header=None):
        head = {"alg": self.alg, "typ": "JWT", **(header or {})}
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{signed}.{b64(self.signature(signed.encode()))}"

    def jwk(self, kid):
        def number(value, length=None):
            return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))

        numbers = self.key.public_key().public_numbers()
        if self.alg in self.CURVES:
            length = (self.key.curve.key_size + 7) // 8
            name = f"P-{self.key.curve.key_size}"
            x, y = number(numbers.x, length), number(numbers.y, length)
            return {"kty": "EC", "crv": name, "kid": kid, "x": x, "y": y}
        return {"kty": "RSA", "kid": kid, "use": "sig", "n": number(numbers.n), "e": number(numbers.e)}


def now():
    return int(time.time())
