/**
 * What the listener of the boxes asks of the licenses that are here: the one for a deployment, which it knows by its HMAC only.
 */
import type { Sha256 } from '../manifests/digest.ts'

export interface SealedLicense {
  /** DER, EnvelopedData */
  cms: Buffer
  /** whose key opens it: the mirror's delivery key, or the one of the box itself */
  recipient: 'mirror' | 'box'
  /** of the license document inside it: the same for every recipient */
  content: Sha256
}

export interface LicenseSource {
  /** @param deployment  as deploymentHmac gives it
   *  @returns undefined where there is none. Of two that differ in their recipient only, the one for the box */
  licenseFor(deployment: string): Promise<SealedLicense | undefined>
}
